"""Measured configurations, read from the leaderboard's points and grouped into series.

A series is one model on one set of GPUs under one task, measured at several batches. The points
themselves are not shipped: only what is fitted to them, and sums.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from calibration.library.relative_fit import Pair
from calibration.tables.columns import BadInput

_SERIES = (
    "task",
    "model_id",
    "gpu_model",
    "num_gpus",
    "weight_precision",
    "tensor_parallel",
    "data_parallel",
    "expert_parallel",
)
_FIGURES = ("avg_batch_size", "energy_per_token_joules", "median_itl_ms", "avg_output_len")


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """One configuration: mean batch, and what a generated token took in it."""

    batch: float
    joules_per_token: float
    seconds_per_token: float
    answer_tokens: float


@dataclass(frozen=True, slots=True)
class MeasuredSeries:
    """One model on one set of GPUs under one task, its points by rising batch."""

    task: str
    model_id: str
    gpu: str
    gpus: int
    precision: str
    tensor_parallel: int
    data_parallel: int
    expert_parallel: int
    points: tuple[MeasuredPoint, ...]

    @property
    def joules_pairs(self) -> list[Pair]:
        """(1/(1+r), joules per token) of every point; 1+r is the batch."""
        return [(1.0 / one.batch, one.joules_per_token) for one in self.points]

    @property
    def seconds_pairs(self) -> list[Pair]:
        """(r, seconds per token) of every point; r is the batch less one."""
        return [(one.batch - 1.0, one.seconds_per_token) for one in self.points]

    @property
    def answer_tokens(self) -> float:
        """Mean new tokens of an answer, over the points."""
        return sum(one.answer_tokens for one in self.points) / len(self.points)


def read_series(path: Path) -> list[MeasuredSeries]:
    """Read the points' CSV into series, by model, GPUs and task.

    Raises BadInput naming the row that cannot be used, or the columns that are missing.
    """
    grouped: dict[tuple[str, ...], list[MeasuredPoint]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = {*_SERIES, *_FIGURES} - {*(reader.fieldnames or ())}
            if missing:
                raise BadInput(f"{path}: no column {', '.join(sorted(missing))}")
            for row in reader:
                key = tuple(row[name] for name in _SERIES)
                grouped.setdefault(key, []).append(_read_point(path, reader.line_num, row))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    return sorted(
        (_make_series(key, points) for key, points in grouped.items()),
        key=lambda one: (one.model_id.lower(), one.gpu, one.gpus, one.task),
    )


def _read_point(path: Path, line: int, row: Mapping[str, str]) -> MeasuredPoint:
    try:
        batch, joules, milliseconds, tokens = (float(row[name]) for name in _FIGURES)
    except (TypeError, ValueError):
        raise BadInput(f"{path}, line {line}: not numbers: {', '.join(_FIGURES)}") from None
    # A NaN fails this test too.
    if not (batch >= 1.0 and joules > 0.0 and milliseconds > 0.0 and tokens > 0.0):
        raise BadInput(f"{path}, line {line}: a batch below 1 or a cost that is not above zero")
    return MeasuredPoint(batch, joules, milliseconds / 1e3, tokens)


def _make_series(key: tuple[str, ...], points: Iterable[MeasuredPoint]) -> MeasuredSeries:
    task, model_id, gpu, gpus, precision, tensor, data, expert = key
    return MeasuredSeries(
        task=task,
        model_id=model_id,
        gpu=gpu,
        gpus=int(gpus),
        precision=precision,
        tensor_parallel=int(tensor),
        data_parallel=int(data),
        expert_parallel=int(expert),
        points=tuple(sorted(points, key=lambda one: one.batch)),
    )
