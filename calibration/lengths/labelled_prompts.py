"""Prompts with the tokens that models answered with: CSV or JSON lines, gzip too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from calibration.tables.columns import BadInput
from calibration.tables.records import read_table


class LabelledPrompts(NamedTuple):
    """Prompts and, per model, their answers' tokens (None where there is no label)."""

    prompts: list[str]
    tokens: dict[str, list[float | None]]


def read_prompts(path: Path, prompt: str, labels: Mapping[str, str]) -> LabelledPrompts:
    """Read a file. Raises BadInput where a column is missing or a label is no count."""
    prompts: list[str] = []
    tokens: dict[str, list[float | None]] = {model: [] for model in labels}
    table = read_table(path)
    table.require_columns(prompt, *labels.values())
    for where, row in table.rows:
        if prompt not in row:
            raise BadInput(f"{where}: no {prompt!r}")
        prompts.append(str(row[prompt]))
        for model, column in labels.items():
            tokens[model].append(_count(row.get(column), f"{where}, {column}"))
    return LabelledPrompts(prompts, tokens)


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
