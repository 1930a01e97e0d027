"""From measured series to the library's entries, and the sums that they can be checked against."""

from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any

import msgspec

from calibration.library.hardware import ACTIVE_PARAMETERS, GPUS, PREFILL_UTILISATION
from calibration.library.measured_series import MeasuredSeries
from calibration.library.relative_fit import (
    Pair,
    RelativeSums,
    fit_pairs,
    leave_one_out,
    sum_points,
)
from calibration.tables.columns import BadInput
from gateway.library.shipped import (
    ErrorSummary,
    Library,
    LibraryEntry,
    OverallErrors,
    name_entry,
)

SOURCE = "ML.ENERGY leaderboard, 2026-02"
LEAST_POINTS = 3
"""A line through two points cannot be found wrong."""
LEAST_POINTS_JUDGED = 5
"""Series that count in the overall error; the leave-one-out of a shorter one is mostly chance."""
_DIGITS = 6


class SeriesSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a series' two fits came from: sums, none of its points."""

    joules: RelativeSums
    seconds: RelativeSums


def build_library(
    measured: Iterable[MeasuredSeries],
) -> tuple[Library, dict[str, SeriesSummary]]:
    """Fit every series of three points and more.

    Returns the library and each entry's sums. Raises BadInput for a model or GPU whose parameters
    or limits are not known, for two series of one name, and where none is long enough.
    """
    long_enough = [one for one in measured if len(one.points) >= LEAST_POINTS]
    judged = [one for one in long_enough if len(one.points) >= LEAST_POINTS_JUDGED]
    if not judged:
        raise BadInput(f"no series of {LEAST_POINTS_JUDGED} points and more")
    library = Library(
        version=1,
        source=SOURCE,
        prefill_utilisation=PREFILL_UTILISATION,
        gpus=GPUS,
        leave_one_out=OverallErrors(
            least_points=LEAST_POINTS_JUDGED,
            series=len(judged),
            points=sum(len(one.points) for one in judged),
            joules=summarise_errors([one.joules_pairs for one in judged]),
            seconds=summarise_errors([one.seconds_pairs for one in judged]),
        ),
        entries={},
    )
    sums: dict[str, SeriesSummary] = {}
    for one in long_enough:
        name = name_entry(one.model_id, one.gpu, one.gpus, one.task)
        if name in library.entries:
            raise BadInput(f"two series are called {name}: tell their precision or layout apart")
        library.entries[name] = _build_entry(library, one)
        sums[name] = SeriesSummary(
            joules=sum_points(one.joules_pairs), seconds=sum_points(one.seconds_pairs)
        )
    return library, sums


def summarise_errors(series: Sequence[Sequence[Pair]]) -> ErrorSummary:
    """Return median and mean of the leave-one-out errors of all points of these series."""
    errors = [error for pairs in series for error in leave_one_out(pairs)]
    return ErrorSummary(median=round(median(errors), 4), mean=round(fmean(errors), 4))


def _build_entry(library: Library, series: MeasuredSeries) -> LibraryEntry:
    if series.gpu not in library.gpus:
        raise BadInput(f"{series.gpu}: no limits known (calibration/library/hardware.py)")
    if series.model_id not in ACTIVE_PARAMETERS:
        raise BadInput(f"{series.model_id}: parameters not known (calibration/library/hardware.py)")
    entry = LibraryEntry(
        model_id=series.model_id,
        task=series.task,
        gpu=series.gpu,
        gpus=series.gpus,
        precision=series.precision,
        tensor_parallel=series.tensor_parallel,
        data_parallel=series.data_parallel,
        expert_parallel=series.expert_parallel,
        active_parameters=ACTIVE_PARAMETERS[series.model_id],
        points=len(series.points),
        batch=[_rounded(series.points[0].batch), _rounded(series.points[-1].batch)],
        answer_tokens=round(series.answer_tokens, 1),
        seconds=[0.0] * 5,
        joules=[0.0] * 5,
        joules_error=summarise_errors([series.joules_pairs]),
        seconds_error=summarise_errors([series.seconds_pairs]),
    )
    return msgspec.structs.replace(
        entry,
        seconds=_coefficients(library.prompt_token_seconds(entry), series.seconds_pairs),
        joules=_coefficients(library.prompt_token_joules(entry), series.joules_pairs),
    )


def _coefficients(per_prompt_token: float, pairs: Sequence[Pair]) -> list[float]:
    """Return b0 to b4 of the `load` form."""
    per_token, load = fit_pairs(pairs)
    return [0.0, _rounded(per_prompt_token), _rounded(per_token), 0.0, _rounded(load)]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def encode_file(content: Any) -> bytes:
    """Return a shipped file's bytes, the same for the same content."""
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
