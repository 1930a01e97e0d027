"""Labels out of decision logs: requests whose answers somebody judged, with their features."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibration.accuracy.labelled_scores import LabelledScores
from calibration.tables.columns import BadInput
from calibration.tables.feedback import LoggedRequestKey, identify_request, parse_judgement
from calibration.tables.records import parse_json_lines, read_raw_bytes
from gateway.scheduling.text_features import (
    FORMS,
    WORD_BUCKETS,
    TextFeatures,
    extract_text_features,
)


def read_feedback(paths: Sequence[Path]) -> LabelledScores:
    """Return judged requests, each with a score for the model that answered it.

    The last word on a request counts. Raises BadInput where none has both a judgement and its
    prompt's features or text, OSError.
    """
    asked: dict[LoggedRequestKey, tuple[str, TextFeatures]] = {}
    judged: dict[LoggedRequestKey, float] = {}
    for path in paths:
        for _, line in parse_json_lines(read_raw_bytes(path)):
            if line is not None:
                _take(line, asked, judged)
    found = [(*asked[name], score) for name, score in judged.items() if name in asked]
    if not found:
        raise BadInput(
            f"{len(judged)} judgements and {len(asked)} requests with features, none with both: "
            "turn on log.features (or log.prompts) and send POST /v1/feedback"
        )
    models = sorted({model for model, _, _ in found})
    scores = np.full((len(found), len(models)), math.nan)
    for at, (model, _, score) in enumerate(found):
        scores[at, models.index(model)] = score
    return LabelledScores([text for _, text, _ in found], scores, models, None)


def _take(
    line: dict[str, Any],
    asked: dict[LoggedRequestKey, tuple[str, TextFeatures]],
    judged: dict[LoggedRequestKey, float],
) -> None:
    told = parse_judgement(line)
    if told is not None:
        judged[told[0]] = told[1]
    model, text = line.get("model"), _read_text(line)
    if isinstance(model, str) and text is not None:
        asked[identify_request(line)] = (model, text)


def _read_text(line: dict[str, Any]) -> TextFeatures | None:
    found = line.get("features")
    if isinstance(found, dict):
        words, form = found.get("words"), found.get("form")
        if (
            isinstance(words, list)
            and isinstance(form, list)
            and len(form) == len(FORMS)
            and all(isinstance(one, int) and 0 <= one < WORD_BUCKETS for one in words)
        ):
            return TextFeatures((), (0.0, 0.0, 0.0, 0.0), tuple(words), tuple(map(float, form)))
    prompt = line.get("prompt")
    return extract_text_features(prompt) if isinstance(prompt, str) else None
