"""The options of `joulegate savings`: light, its help is shown without the numeric stack."""

from dataclasses import dataclass, field
from typing import Annotated

import typer

from calibration.recalibrate.prometheus_options import PrometheusOptions


@dataclass(frozen=True, slots=True)
class SavingsOptions:
    """The command line, as it was typed."""

    prometheus: Annotated[str, typer.Option(help="Prometheus's address.")]
    window: Annotated[str, typer.Option(help="How far back to read: 12h, 7d.")] = "7d"
    experiment: Annotated[
        str | None, typer.Option(help="Which experiment; default: the one that there is.")
    ] = None
    focus: Annotated[
        str | None,
        typer.Option(
            help="Print a month (2026-11) as FOCUS 1.4 CSV instead: a row a day and tenant."
        ),
    ] = None
    access: PrometheusOptions = field(default_factory=PrometheusOptions)
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False
