"""Files that already know: scores (model, accuracy), and labels (prompt, task, model, correct)."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from calibration.accuracy.scores import Found, Marks, Score
from calibration.tables.columns import BadInput
from calibration.tables.records import Row, Table

_RIGHT: Final = frozenset({"1", "1.0", "true", "yes", "y", "right", "correct"})
_WRONG: Final = frozenset({"0", "0.0", "false", "no", "n", "wrong", "incorrect"})


def task_of(row: Row, depth: int | None) -> str:
    """Return a row's task, cut to `depth` parts between slashes; "" where it has none."""
    task = str(row.values.get("task", "")).strip()
    return task if depth is None else "/".join(task.split("/")[:depth])


def of_scores(table: Table) -> Found:
    """Read a file of scores: model, accuracy and, per row, a task or none (overall)."""
    table.needs("model", "accuracy")
    seen: dict[tuple[str, str], str] = {}
    scores = []
    for row in table.rows:
        model, task = _text(row, "model"), task_of(row, None)
        before = seen.setdefault((model, task), row.place)
        if before != row.place:
            what = f"task {task!r}" if task else "overall accuracy"
            raise BadInput(f"{row.place}: {model}'s {what} stands at {before} already")
        scores.append(Score(model, task or None, _share(row)))
    return Found(scores, "scores", _sources(table))


def of_labels(table: Table, depth: int | None = None) -> Found:
    """Read a long file: one row for each prompt and model, and whether it was right."""
    table.needs("model", "correct")
    marks, seen, repeated, blank = Marks(), set(), 0, 0
    for row in table.rows:
        model, task = _text(row, "model"), task_of(row, depth)
        mark = _correct(row, "correct")
        if mark is None:
            blank += 1
            continue
        key = (model, task, str(row.values.get("prompt", row.place)))
        repeated += key in seen
        seen.add(key)
        marks.add(model, task, mark)
    return _found(table, marks, blank, repeated)


def of_wide_labels(table: Table, columns: Mapping[str, str], depth: int | None = None) -> Found:
    """Read a wide file: one row a prompt; `columns` maps a model to its column of correctness."""
    table.needs(*columns.values())
    marks, seen, repeated, blank = Marks(), set(), 0, 0
    for row in table.rows:
        task = task_of(row, depth)
        key = (task, str(row.values.get("prompt", row.place)))
        repeated += key in seen
        seen.add(key)
        for model, column in columns.items():
            mark = _correct(row, column)
            if mark is None:
                blank += 1
            else:
                marks.add(model, task, mark)
    return _found(table, marks, blank, repeated)


def columns_of(given: str) -> dict[str, str]:
    """Read `--label-columns A,B` or `NAME=COLUMN,…`. Raises BadInput."""
    found: dict[str, str] = {}
    for text in given.split(","):
        name, _, column = text.partition("=")
        name, column = name.strip(), column.strip() or name.strip()
        if not name or name in found:
            raise BadInput(f"--label-columns {given}: want COLUMN,COLUMN or MODEL=COLUMN,…")
        found[name] = column
    return found


def _found(table: Table, marks: Marks, blank: int, repeated: int) -> Found:
    found = Found(marks.scores(), "labels", _sources(table))
    if not found.scores:
        raise BadInput(f"{table.name}: no row says whether an answer was correct")
    if blank:
        found.notes.append(f"{blank} labels are blank and were left out")
    if repeated:
        found.notes.append(
            f"{repeated} rows repeat a prompt: each counts, and the intervals are too narrow"
        )
    return found


def _sources(table: Table) -> list[dict[str, str]]:
    return [{"name": table.name.rpartition("/")[2], "sha256": table.sha256}]


def _text(row: Row, column: str) -> str:
    value = row.values.get(column, "")
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{row.place}: column {column!r} holds no name")
    return value.strip()


def _share(row: Row) -> float:
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


def _correct(row: Row, column: str) -> float | None:
    value = row.values.get(column, "")
    text = str(value).strip().lower()
    if text in _RIGHT:
        return 1.0
    if text in _WRONG:
        return 0.0
    if not text:
        return None
    raise BadInput(f"{row.place}: column {column!r}: {value!r} is neither right (1) nor wrong (0)")
