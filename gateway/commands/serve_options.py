"""The options of `joulegate serve`: light, for its help is shown without the work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The command line, as it was typed."""

    config: Annotated[Path, typer.Option("--config", help="gateway.yaml.")]
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8080
    workers: Annotated[int, typer.Option(min=1, help="Processes; one per core at most.")] = 1
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info"
