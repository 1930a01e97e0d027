"""Prompts with the tokens that models answered with: CSV or JSON lines, gzip too."""

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from calibration.tables.columns import BadInput


class LabelledPrompts(NamedTuple):
    """Prompts and, per model, their answers' tokens (None where there is no label)."""

    prompts: list[str]
    tokens: dict[str, list[float | None]]


def read_labels(texts: Sequence[str]) -> dict[str, str]:
    """Read `MODEL=COLUMN` options. Raises BadInput."""
    found: dict[str, str] = {}
    for text in texts:
        model, equals, column = text.partition("=")
        if not (model and equals and column):
            raise BadInput(f"--label {text}: want MODEL=COLUMN")
        if model in found:
            raise BadInput(f"--label {text}: {model!r} is named twice")
        found[model] = column
    return found


def read_prompts(path: Path, prompt: str, labels: Mapping[str, str]) -> LabelledPrompts:
    """Read a file. Raises BadInput where a column is missing or a label is no count; OSError."""
    prompts: list[str] = []
    tokens: dict[str, list[float | None]] = {model: [] for model in labels}
    for number, row in enumerate(_rows(path), 1):
        where = f"{path.name}, row {number}"
        for column in (prompt, *labels.values()):
            if column not in row:
                have = ", ".join(map(str, row))
                raise BadInput(f"{where}: no column {column!r} (there are: {have})")
        prompts.append(str(row[prompt]))
        for model, column in labels.items():
            tokens[model].append(_count(row[column], f"{where}, {column}"))
    if not prompts:
        raise BadInput(f"{path.name}: no rows")
    return LabelledPrompts(prompts, tokens)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    raw = path.read_bytes()
    try:
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadInput(f"{path.name}: cannot be read: {error}") from None
    name = path.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson")):
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise BadInput(f"{path.name}, line {number}: {error}") from None
                if not isinstance(row, dict):
                    raise BadInput(f"{path.name}, line {number}: not an object")
                yield row
    else:
        yield from csv.DictReader(io.StringIO(text, newline=""))


def _count(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if not 0.0 <= found <= 1e9:  # noqa: PLR2004
        raise BadInput(f"{where}: {value!r} is not a count of tokens")
    return max(1.0, found)
