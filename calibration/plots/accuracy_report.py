"""What `joulegate accuracy train --report` wrote, read for its pictures."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from calibration.tables.columns import BadInput

_Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class ReportedBin(Struct, frozen=True):
    """Rows of about the same prediction: how many, the predicted and the observed share."""

    n: int
    predicted: _Share
    observed: _Share


class ReportedModel(Struct, frozen=True):
    """One model's held-out predictions."""

    n: int
    ece: _Share
    reliability: Annotated[list[ReportedBin], Meta(min_length=1)]


class ReportedCurve(Struct, frozen=True):
    """One router: its area, and quality at each cost where it has a curve."""

    apgr: float
    curve: list[tuple[float, float]] = []


class ReportedRouting(Struct, frozen=True):
    """One group of tasks: every router on the same prompts; costs relative to the dearest's."""

    n: int
    always_cheapest: _Share
    always_most_accurate: _Share
    trained: ReportedCurve
    shuffled_mean_of_20: ReportedCurve
    oracle: ReportedCurve
    task_table: ReportedCurve | None = None


class AccuracyReport(Struct, frozen=True):
    """The whole of it, as far as pictures need it."""

    models: Annotated[dict[str, ReportedModel], Meta(min_length=1)]
    routing: dict[str, ReportedRouting] = {}


def read_accuracy_report(path: Path) -> AccuracyReport:
    """Read a file. Raises BadInput where it is no such report, OSError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=AccuracyReport)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput(f"--accuracy {path}: not a report of accuracy train: {error}") from None
