"""Ridge regression of ln(tokens) on the words of prompts, robust, with an honest deviation.

Rules: features are those that serve (`gateway.scheduling.text_features`), words scaled by
1/sqrt(words), the shape standardised and weighted down. Absolute error is what counts, so rows are
reweighted towards a median (iteratively reweighted least squares). Centre and deviation come
from leave-one-out residuals: the centre is their median, and sigma puts 90% of them below its
90% quantile. Solved in the dual, n x n; of more rows than `MOST_ROWS` a seeded sample is taken.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.profile import WordsRegression
from gateway.scheduling.answer_length import find_normal_quantile
from gateway.scheduling.text_features import BUCKETS, SHAPES, extract_text_features

Floats = NDArray[np.float64]

MOST_ROWS = 4000
LEAST_ROWS = 20
_PENALTY = 1.0
_SHAPE_SCALE = 0.3
_TURNS = 5
_LEAST_RESIDUAL = 0.3
_P90 = 0.9


class _Design(NamedTuple):
    words: Floats
    shape: Floats
    mean: Floats
    deviation: Floats

    @property
    def matrix(self) -> Floats:
        scaled = (self.shape - self.mean) / self.deviation * _SHAPE_SCALE
        return np.hstack([self.words, scaled])


class WordsFit(NamedTuple):
    """A trained model, and how far it is off on rows that it has not seen (leave-one-out)."""

    regression: WordsRegression
    r2: float
    absolute_error: float
    median_error: float
    """Of the constant median, for comparison."""


def train_lengths(prompts: Sequence[str], tokens: Sequence[float], *, seed: int = 0) -> WordsFit:
    """Train one model. Raises ValueError with too few rows."""
    if len(prompts) < LEAST_ROWS:
        raise ValueError(f"{len(prompts)} labelled prompts, at least {LEAST_ROWS} needed")
    logs = np.log(np.array(tokens, dtype=float))
    rows = np.arange(len(prompts))
    if len(rows) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))
        logs = logs[rows]
    design = _design([prompts[int(at)] for at in rows])
    matrix = design.matrix
    dual, bias, left_out = _solve(matrix, logs)
    weights = matrix.T @ dual
    residuals = logs - left_out
    centre = float(np.median(residuals))
    spread = float(np.quantile(residuals - centre, _P90)) / find_normal_quantile(_P90)
    errors = residuals - centre
    shape = [
        (float(weight * _SHAPE_SCALE), float(mean), float(deviation))
        for weight, mean, deviation in zip(
            weights[BUCKETS:], design.mean, design.deviation, strict=True
        )
    ]
    regression = WordsRegression(
        bias=bias + centre,
        sigma=min(5.0, max(0.05, spread)),
        words=[round(float(weight), 6) for weight in weights[:BUCKETS]],
        shape=shape,
        n=len(rows),
    )
    return WordsFit(
        regression,
        1.0 - float((errors**2).sum() / ((logs - logs.mean()) ** 2).sum()),
        float(np.abs(errors).mean()),
        float(np.abs(logs - np.median(logs)).mean()),
    )


def _design(prompts: Sequence[str]) -> _Design:
    words = np.zeros((len(prompts), BUCKETS))
    shape = np.zeros((len(prompts), len(SHAPES)))
    for at, prompt in enumerate(prompts):
        found = extract_text_features(prompt)
        if found.buckets:
            words[at, list(found.buckets)] = len(found.buckets) ** -0.5
        shape[at] = found.shape
    deviation = shape.std(axis=0)
    deviation[deviation <= 0.0] = 1.0
    return _Design(words, shape, shape.mean(axis=0), deviation)


def _solve(matrix: Floats, logs: Floats) -> tuple[Floats, float, Floats]:
    """Return dual coefficients, intercept, and each row's prediction without itself."""
    kernel = matrix @ matrix.T
    ones = np.ones(len(logs))
    weights = ones
    for _ in range(_TURNS):
        inverse = np.linalg.inv(kernel + _PENALTY * np.diag(1.0 / weights))
        bias = float(ones @ inverse @ logs) / float(ones @ inverse @ ones)
        dual = inverse @ (logs - bias)
        # The leave-one-out residual of a ridge in its dual form is dual / diag(inverse).
        left_out = logs - dual / np.diag(inverse)
        weights = 1.0 / np.maximum(np.abs(logs - left_out), _LEAST_RESIDUAL)
        weights = weights / weights.mean()
    return dual, bias, left_out
