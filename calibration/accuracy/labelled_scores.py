"""Labelled prompts for `joulegate accuracy train`: a column a model, or a row a label."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calibration.arrays import Floats
from calibration.tables.columns import BadInput
from calibration.tables.records import read_table
from gateway.scheduling.text_features import TextFeatures, extract_text_features

_WORDS = {"true": 1.0, "yes": 1.0, "correct": 1.0, "false": 0.0, "no": 0.0, "incorrect": 0.0}
_LONG_MODEL = "model"
_LONG_SCORES = ("correct", "score")


class LabelledScores(NamedTuple):
    """Prompts as features, scores (prompts x models, nan: no label), and tasks where told."""

    prompts: list[TextFeatures]
    scores: Floats
    models: list[str]
    tasks: list[str] | None


def read_scores(
    paths: Sequence[Path], prompt: str, labels: Mapping[str, str], task: str | None
) -> LabelledScores:
    """Read files. Without `labels` they are long: columns model, and correct or score.

    Raises BadInput, OSError.
    """
    texts: list[str] = []
    tasks: list[str] = []
    found: list[dict[str, float]] = []
    places: dict[str, int] = {}
    for path in paths:
        table = read_table(path)
        table.require_columns(prompt, *([task] if task else []), *labels.values())
        for where, row in table.rows:
            if prompt not in row:
                raise BadInput(f"{where}: no {prompt!r}")
            text, told = str(row[prompt]), _read_row(row, labels, where)
            # In long form a prompt has a row for each model.
            at = places.get(text) if not labels else None
            if at is None:
                at = places[text] = len(texts)
                texts.append(text)
                tasks.append(str(row.get(task, "")) if task else "")
                found.append({})
            found[at] |= told
    if not texts:
        raise BadInput("no rows")
    models = list(labels) or sorted({model for one in found for model in one})
    scores = np.array([[one.get(model, math.nan) for model in models] for one in found])
    prompts = [extract_text_features(text) for text in texts]
    return LabelledScores(prompts, scores, models, tasks if task else None)


def read_texts(path: Path, prompt: str) -> list[str]:
    """Return a file's prompts. Raises BadInput, OSError."""
    table = read_table(path)
    table.require_columns(prompt)
    return [str(row.get(prompt, "")) for _, row in table.rows]


def _read_row(row: Mapping[str, Any], labels: Mapping[str, str], where: str) -> dict[str, float]:
    if labels:
        pairs = [(model, row.get(column)) for model, column in labels.items()]
    else:
        score = next((column for column in _LONG_SCORES if column in row), None)
        if score is None or _LONG_MODEL not in row:
            raise BadInput(
                f"{where}: give --label MODEL=COLUMN, or columns {_LONG_MODEL} and "
                f"{' or '.join(_LONG_SCORES)}"
            )
        pairs = [(str(row[_LONG_MODEL]), row[score])]
    return {model: read_score(value, where) for model, value in pairs if value not in (None, "")}


def read_score(value: Any, where: str) -> float:
    """Return a score from 0 to 1. Raises BadInput."""
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not 0.0 <= found <= 1.0:
        raise BadInput(f"{where}: {value!r} is no score from 0 to 1")
    return found
