"""The options of `joulegate check`: light, for its help is shown without the work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The command line, as it was typed."""

    config: Annotated[
        Path | None, typer.Option("--config", help="gateway.yaml; see docs/reference/config.md.")
    ] = None
    profile: Annotated[Path | None, typer.Option(help="A profile file by itself.")] = None
    meter: Annotated[Path | None, typer.Option("--meter", help="meter.yaml.")] = None
    schema: Annotated[bool, typer.Option("--schema", help="Print gateway.yaml's schema.")] = False
    meter_schema: Annotated[
        bool, typer.Option("--meter-schema", help="Print meter.yaml's schema.")
    ] = False
    example: Annotated[
        bool, typer.Option("--example", help="Print a gateway.yaml to begin with.")
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False
