"""Files of known scores (model, accuracy) or labels (prompt, task, model, correct)."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from calibration.accuracy.scores import AccuracyScore, CorrectAnswerCounts, LoadedScores
from calibration.tables.columns import BadInput
from calibration.tables.records import RecordTable, TableRow

_CORRECT_TEXTS: Final = frozenset({"1", "1.0", "true", "yes", "y", "right", "correct"})
_INCORRECT_TEXTS: Final = frozenset({"0", "0.0", "false", "no", "n", "wrong", "incorrect"})


def read_task(row: TableRow, depth: int | None) -> str:
    """Return a row's task, cut to `depth` parts between slashes; "" where it has none."""
    task = str(row.values.get("task", "")).strip()
    return task if depth is None else "/".join(task.split("/")[:depth])


def read_scores(table: RecordTable) -> LoadedScores:
    """Read a file of scores: model, accuracy and, per row, a task or none (overall).

    Raises BadInput.
    """
    table.require_columns("model", "accuracy")
    seen: dict[tuple[str, str], str] = {}
    scores = []
    for row in table.rows:
        model, task = _read_name(row, "model"), read_task(row, None)
        before = seen.setdefault((model, task), row.place)
        if before != row.place:
            what = f"task {task!r}" if task else "overall accuracy"
            raise BadInput(f"{row.place}: {model}'s {what} stands at {before} already")
        scores.append(AccuracyScore(model, task or None, _read_accuracy(row)))
    return LoadedScores(scores, "scores", _describe_source(table))


def read_labels(table: RecordTable, depth: int | None = None) -> LoadedScores:
    """Read a long file: one row for each prompt and model, and whether it was right."""
    table.require_columns("model", "correct")
    marks, seen, repeated, blank = CorrectAnswerCounts(), set(), 0, 0
    for row in table.rows:
        model, task = _read_name(row, "model"), read_task(row, depth)
        mark = _read_mark(row, "correct")
        if mark is None:
            blank += 1
            continue
        key = (model, task, str(row.values.get("prompt", row.place)))
        repeated += key in seen
        seen.add(key)
        marks.add_mark(model, task, mark)
    return _build_scores(table, marks, blank, repeated)


def read_wide_labels(
    table: RecordTable, columns: Mapping[str, str], depth: int | None = None
) -> LoadedScores:
    """Read a wide file: one row a prompt; `columns` maps a model to its column of correctness."""
    table.require_columns(*columns.values())
    marks, seen, repeated, blank = CorrectAnswerCounts(), set(), 0, 0
    for row in table.rows:
        task = read_task(row, depth)
        key = (task, str(row.values.get("prompt", row.place)))
        repeated += key in seen
        seen.add(key)
        for model, column in columns.items():
            mark = _read_mark(row, column)
            if mark is None:
                blank += 1
            else:
                marks.add_mark(model, task, mark)
    return _build_scores(table, marks, blank, repeated)


def parse_label_columns(given: str) -> dict[str, str]:
    """Read `--label-columns A,B` or `NAME=COLUMN,…`. Raises BadInput."""
    found: dict[str, str] = {}
    for text in given.split(","):
        name, _, column = text.partition("=")
        name, column = name.strip(), column.strip() or name.strip()
        if not name or name in found:
            raise BadInput(f"--label-columns {given}: want COLUMN,COLUMN or MODEL=COLUMN,…")
        found[name] = column
    return found


def _build_scores(
    table: RecordTable, marks: CorrectAnswerCounts, blank: int, repeated: int
) -> LoadedScores:
    found = LoadedScores(marks.compute_scores(), "labels", _describe_source(table))
    if not found.scores:
        raise BadInput(f"{table.name}: no row says whether an answer was correct")
    if blank:
        found.notes.append(f"{blank} labels are blank and were left out")
    if repeated:
        found.notes.append(
            f"{repeated} rows repeat a prompt: each counts, and the intervals are too narrow"
        )
    return found


def _describe_source(table: RecordTable) -> list[dict[str, str]]:
    return [{"name": table.name.rpartition("/")[2], "sha256": table.sha256}]


def _read_name(row: TableRow, column: str) -> str:
    value = row.values.get(column, "")
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{row.place}: column {column!r} holds no name")
    return value.strip()


def _read_accuracy(row: TableRow) -> float:
    value: Any = row.values.get("accuracy", "")
    try:
        share = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        share = float("nan")
    if not isfinite(share) or not 0.0 <= share <= 1.0:
        hint = ""
        if isfinite(share) and 1.0 < share <= 100.0:  # noqa: PLR2004 - per cent
            hint = f"; {share:g} per cent is {share / 100:g}"
        raise BadInput(f"{row.place}: accuracy {value!r} is not a share from 0 to 1{hint}")
    return share


def _read_mark(row: TableRow, column: str) -> float | None:
    value = row.values.get(column, "")
    text = str(value).strip().lower()
    if text in _CORRECT_TEXTS:
        return 1.0
    if text in _INCORRECT_TEXTS:
        return 0.0
    if not text:
        return None
    raise BadInput(f"{row.place}: column {column!r}: {value!r} is neither right (1) nor wrong (0)")
