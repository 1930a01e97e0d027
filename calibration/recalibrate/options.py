"""The options of `joulegate recalibrate`: light, its help is shown without the numeric stack."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from calibration.recalibrate.limits import GateLimits, PriorSettings
from calibration.recalibrate.prometheus_options import PrometheusOptions

BEST = "best"


@dataclass(frozen=True, slots=True)
class RecalibrateOptions:
    """The command line, as it was typed."""

    prometheus: Annotated[str | None, typer.Option(help="Prometheus's address.")] = None
    window: Annotated[str, typer.Option(help="How far back to read: 90m, 6h, 7d.")] = "6h"
    profile: Annotated[
        Path | None, typer.Option(help="The live profile; default: the shipped one.")
    ] = None
    learnt: Annotated[
        Path | None,
        typer.Option(help="Its models replace the live profile's, where the file is there."),
    ] = None
    out: Annotated[Path | None, typer.Option(help="Where to write; default: --profile.")] = None
    model: Annotated[
        list[str], typer.Option(help="DEPLOYMENT, or DEPLOYMENT=KEY in the profile: only these.")
    ] = field(default_factory=list)
    form: Annotated[
        str, typer.Option(help="additive, interaction, context, load, load-context or best.")
    ] = BEST
    block: Annotated[
        str | None,
        typer.Option(
            help="Length of the blocks that errors are taken over: 10m; default: by window."
        ),
    ] = None
    limits: GateLimits = field(default_factory=GateLimits)
    prior: PriorSettings = field(default_factory=PriorSettings)
    access: PrometheusOptions = field(default_factory=PrometheusOptions)
    watch: Annotated[str | None, typer.Option(help="Again and again, each 15m, say.")] = None
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Put the profile before this one back.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no profile.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False

    @property
    def target(self) -> Path | None:
        """The file to write."""
        return self.out or self.profile
