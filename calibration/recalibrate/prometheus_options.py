"""How Prometheus is asked: the options that `recalibrate` and `savings` share. Light."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class PrometheusOptions:
    """What goes with each query."""

    header: Annotated[list[str], typer.Option(help="'Name: value' to send; may be repeated.")] = (
        field(default_factory=list)
    )
    bearer_token_file: Annotated[Path | None, typer.Option(help="File with a token to send.")] = (
        None
    )
    match: Annotated[
        list[str],
        typer.Option(help="LABEL=VALUE that series must have: one's own among several gateways'."),
    ] = field(default_factory=list)
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 30.0
