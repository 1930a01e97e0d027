"""From measured steps to a step model: the counter's period, its power, and what a step costs.

PURE and without any package: it runs where only torch is.

Rules:
- A step costs a fixed part, a part per sequence, per prompt token and per token of context that is
  read (the KV cache): DESIGN's step model. Joules and seconds are fitted alike.
- Each row is weighed by 1/y, so that errors are relative: a step of batch 1 counts like one of 128.
- Energy between two changes of a counter is known to the counter's unit, whenever it was looked at.
"""

import itertools
from collections.abc import Iterable, Sequence
from math import sqrt
from statistics import median
from typing import Any

PARTS = ("fixed", "per_sequence", "per_prompt_token", "per_context_token")
FEW_SEQUENCES = 8

Readings = Sequence[tuple[float, int]]
"""(seconds, microjoules)"""
Row = dict[str, Any]


def list_changes(readings: Readings) -> list[tuple[float, int]]:
    """Return when a counter was first seen at each new value."""
    changes = []
    for before, after in itertools.pairwise(readings):
        if after[1] != before[1]:
            changes.append(after)
    return changes


def compute_period_seconds(readings: Readings) -> float | None:
    """Return the median gap between changes; None of fewer than three."""
    changes = list_changes(readings)
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(changes)]
    return median(gaps) if len(gaps) > 1 else None


def compute_watts(readings: Readings) -> tuple[float, int] | None:
    """Return the mean power from first change to last, and how many there were; None of one."""
    changes = list_changes(readings)
    if len(changes) < 2:
        return None
    (start, first), (end, last) = changes[0], changes[-1]
    return (last - first) / (end - start) / 1e6, len(changes)


def list_features(row: Row) -> list[float]:
    """Return what a step had of each of PARTS."""
    batch = row["batch"]
    if row["kind"] == "prefill":
        return [1.0, batch, batch * row["tokens"], 0.0]
    return [1.0, batch, 0.0, batch * row["context"]]


def solve_linear(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve by elimination with pivots. Raises ValueError where there is no single solution."""
    size = len(right)
    rows = [[*line, value] for line, value in zip(matrix, right, strict=True)]
    scale = max(abs(value) for line in matrix for value in line)
    for column in range(size):
        pivot = max(range(column, size), key=lambda line: abs(rows[line][column]))
        if abs(rows[pivot][column]) <= 1e-12 * scale:
            raise ValueError(f"the rows do not tell {PARTS[column]} from the others")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for line in range(size):
            if line != column:
                factor = rows[line][column] / rows[column][column]
                rows[line] = [a - factor * b for a, b in zip(rows[line], rows[column], strict=True)]
    return [rows[line][size] / rows[line][line] for line in range(size)]


def fit_steps(rows: Sequence[Row], target: str) -> Row:
    """Fit `target` of each step; parts, their standard errors, and relative errors.

    Raises ValueError where the rows are too few or too alike.
    """
    size = len(PARTS)
    if len(rows) <= size:
        raise ValueError(f"{len(rows)} rows for {size} parts")
    scales = [max(list_features(row)[part] for row in rows) for part in range(size)]
    if not all(scales):
        raise ValueError(f"no row has any of {PARTS[scales.index(0.0)]}")
    weighted = [
        [f / s / row[target] for f, s in zip(list_features(row), scales, strict=True)]
        for row in rows
    ]
    matrix = [[sum(x[i] * x[j] for x in weighted) for j in range(size)] for i in range(size)]
    scaled = solve_linear(matrix, [sum(x[i] for x in weighted) for i in range(size)])
    errors = [sum(b * f for b, f in zip(scaled, x, strict=True)) - 1.0 for x in weighted]
    variance = sum(error * error for error in errors) / (len(rows) - size)
    found: Row = {"rows": len(rows)}
    for part, name in enumerate(PARTS):
        unit = [float(part == other) for other in range(size)]
        found[name] = scaled[part] / scales[part]
        spread = variance * solve_linear(matrix, unit)[part]
        found[f"{name}_error"] = sqrt(max(spread, 0.0)) / scales[part]
    found["median_relative_error"] = median(map(abs, errors))
    few = [
        abs(error)
        for error, row in zip(errors, rows, strict=True)
        if row["kind"] == "decode" and row["batch"] <= FEW_SEQUENCES
    ]
    found["median_relative_error_to_batch_8"] = median(few) if few else None
    found["largest_relative_error_to_batch_8"] = max(few) if few else None
    return found


def summarise_steps(records: Iterable[Row]) -> Row:
    """Return all that the records say: counter, idle, and each model's parts."""
    by_kind: dict[str, list[Row]] = {}
    for record in records:
        by_kind.setdefault(record["kind"], []).append(record)
    steps = by_kind.get("prefill", []) + by_kind.get("decode", [])
    models: Row = {}
    for name in sorted({row["model"] for row in steps}):
        mine = [row for row in steps if row["model"] == name]
        models[name] = {}
        for target in ("joules", "seconds"):
            known = [row for row in mine if row.get(target)]
            try:
                models[name][target] = fit_steps(known, target)
            except ValueError as error:
                models[name][target] = {"rows": len(known), "not_fitted": str(error)}
    return {
        "machine": by_kind.get("machine", [None])[-1],
        "counter": by_kind.get("counter", [None])[-1],
        "idle": by_kind.get("idle", [None])[-1],
        "idle_watts_loaded": {row["model"]: row["watts"] for row in by_kind.get("idle_loaded", [])},
        "models": models,
    }
