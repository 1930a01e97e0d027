"""The options of `joulegate meter`: light, for its help is shown without the work."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class MeterOptions:
    """The command line, as it was typed."""

    config: Annotated[
        Path | None, typer.Option("--config", help="meter.yaml, for more than one ledger.")
    ] = None
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 9464
    source: Annotated[
        str | None, typer.Option(help="auto (default), nvml, rapl, dcgm, file or simulator.")
    ] = None
    device: Annotated[
        list[str], typer.Option(help="GPU by number or UUID (default: all), or the file.")
    ] = field(default_factory=list)
    backend: Annotated[list[str], typer.Option(help="URL of a vLLM server on these devices.")] = (
        field(default_factory=list)
    )
    url: Annotated[
        str | None, typer.Option(help="Prometheus (dcgm), or the simulated backend.")
    ] = None
    secret_file: Annotated[
        Path | None, typer.Option(help="What gateways must send; also JOULEGATE_METER_SECRET.")
    ] = None
    no_secret: Annotated[
        bool,
        typer.Option("--no-secret", help="Listen beyond loopback and take events from anybody."),
    ] = False
    hz: Annotated[
        float | None, typer.Option(min=1, max=200, help="Readings per second; default: 20.")
    ] = None
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info"
