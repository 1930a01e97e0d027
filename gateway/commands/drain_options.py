"""The options of `joulegate drain` and `undrain`: light, for help is shown without the work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class DrainTarget:
    """Which backend, and of which gateway."""

    backend: Annotated[str, typer.Argument(help="host:port as in the metrics, or the URL.")]
    config: Annotated[
        Path | None, typer.Option("--config", help="gateway.yaml that has `admin`.")
    ] = None
    admin: Annotated[
        str | None, typer.Option("--admin", help="The operators' address of a gateway, as a URL.")
    ] = None
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the operators' token; default: the config's.")
    ] = None


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """The command line of `drain`, as it was typed."""

    target: DrainTarget
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="Wait so long for what is in flight there to end.")
    ] = 600.0
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False


@dataclass(frozen=True, slots=True)
class UndrainOptions:
    """The command line of `undrain`, as it was typed."""

    target: DrainTarget
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False
