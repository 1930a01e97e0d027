"""From all heads' values to each model's share of right answers, and which calibration is best.

Rules of this file:

- How much better one model is depends on how hard a prompt is for all of them: hardly on what all
  or none can answer. Calibrated one by one, values lose that; `joint` is a logistic regression of
  each model's labels on its value beside the mean of all, to the second order.
- The best is what errs least in the *differences* between models, on rows that it had not seen:
  those decide where a prompt goes. With one model it is the squared error itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from calibration.accuracy.score_calibration import (
    ALONE,
    Points,
    apply_points,
    calibrate_held_out,
)
from calibration.arrays import Floats
from gateway.accuracy_profile import JointSurface

JOINT = "joint"
CALIBRATIONS = (*ALONE, JOINT)
_PENALTY = 1.0
_TURNS = 25
_CLOSE = 1e-8
_ENDS = (0.5, 99.5)
_LEAST_FULL = 50


class CalibratedModels(NamedTuple):
    """All models' calibration: its kind, the shares on held-out rows, and as the profile has it.

    `error` is the mean squared error of differences between models.
    """

    kinds: list[str]
    predicted: Floats
    points: list[Points]
    """Empty where there are surfaces."""
    surfaces: list[JointSurface]
    error: float


def calibrate_models(
    values: Floats, scores: Floats, folds: np.ndarray, wanted: Sequence[str]
) -> CalibratedModels:
    """Return the best of these kinds; prompts x models of held-out values and of scores or nan."""
    found = []
    alone = [kind for kind in wanted if kind in ALONE]
    several = values.shape[1] > 1
    if alone or not several:
        found.append(_calibrate_alone(values, scores, folds, alone or ALONE))
    if several and JOINT in wanted:
        found.append(_calibrate_jointly(values, scores, folds))
    return min(found, key=lambda one: one.error)


def measure_difference_error(predicted: Floats, scores: Floats) -> float:
    """Return the mean squared error of each model's share less the mean of all, per prompt.

    Where too few prompts have labels of all models, or there is one model, of the shares.
    """
    off = predicted - scores
    full = np.isfinite(off).all(axis=1)
    if off.shape[1] < 2 or full.sum() < _LEAST_FULL:  # noqa: PLR2004 - nothing to compare
        return float(np.nanmean(off**2))
    off = off[full]
    return float(((off - off.mean(axis=1, keepdims=True)) ** 2).mean())


def fit_surface(values: Floats, scores: Floats, at: int) -> JointSurface:
    """Return one model's calibration beside the others; `scores` are its own, all of them known."""
    middle = values.mean(axis=1)
    own = values[:, at] - middle
    bounds = [np.percentile(one, _ENDS) for one in (own, middle)]
    terms, centre, scale = _standardise(own, middle, bounds)
    weights = _fit_logistic(terms, scores)
    return JointSurface(
        _unfold(weights, centre, scale),
        (float(bounds[0][0]), float(bounds[0][1])),
        (float(bounds[1][0]), float(bounds[1][1])),
    )


def evaluate_surface(surface: JointSurface, values: Floats, at: int) -> Floats:
    """Return a model's share on each row of all models' values."""
    middle = values.mean(axis=1)
    u = np.clip(values[:, at] - middle, *surface.own)
    v = np.clip(middle, *surface.common)
    logit = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1) @ surface.weights
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(logit, -500.0, 500.0)))
    return found


def _calibrate_alone(
    values: Floats, scores: Floats, folds: np.ndarray, wanted: Sequence[str]
) -> CalibratedModels:
    predicted = np.zeros_like(values)
    kinds, points = [], []
    for at in range(values.shape[1]):
        kind, predicted[:, at] = calibrate_held_out(values[:, at], scores[:, at], folds, wanted)
        kinds.append(kind)
        points.append(apply_points(values[:, at], scores[:, at], kind))
    return CalibratedModels(
        kinds, predicted, points, [], measure_difference_error(predicted, scores)
    )


def _calibrate_jointly(values: Floats, scores: Floats, folds: np.ndarray) -> CalibratedModels:
    predicted = np.zeros_like(values)
    surfaces = []
    labelled = np.isfinite(scores)
    for at in range(values.shape[1]):
        for fold in np.unique(folds):
            out = folds == fold
            learnt = ~out & labelled[:, at]
            surface = fit_surface(values[learnt], scores[learnt, at], at)
            predicted[out, at] = evaluate_surface(surface, values[out], at)
        known = labelled[:, at]
        surfaces.append(fit_surface(values[known], scores[known, at], at))
    return CalibratedModels(
        [JOINT] * values.shape[1],
        predicted,
        [],
        surfaces,
        measure_difference_error(predicted, scores),
    )


def _standardise(
    own: Floats, middle: Floats, bounds: list[Floats]
) -> tuple[Floats, Floats, Floats]:
    """Return the terms of the standardised values, and what they were standardised by."""
    both = np.stack([np.clip(own, *bounds[0]), np.clip(middle, *bounds[1])], axis=1)
    centre, scale = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-6)
    u, v = ((both - centre) / scale).T
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1), centre, scale


def _unfold(
    weights: Floats, centre: Floats, scale: Floats
) -> tuple[float, float, float, float, float, float]:
    """Return the weights of the terms of values as they are, from those of standardised ones."""
    one, of_u, of_v, of_uu, of_uv, of_vv = weights.tolist()
    (a, b), (s, t) = centre.tolist(), scale.tolist()
    of_u, of_v, of_uu, of_uv, of_vv = (
        of_u / s,
        of_v / t,
        of_uu / s**2,
        of_uv / (s * t),
        of_vv / t**2,
    )
    return (
        one - of_u * a - of_v * b + of_uu * a * a + of_uv * a * b + of_vv * b * b,
        of_u - 2.0 * of_uu * a - of_uv * b,
        of_v - 2.0 * of_vv * b - of_uv * a,
        of_uu,
        of_uv,
        of_vv,
    )


def _fit_logistic(terms: Floats, scores: Floats) -> Floats:
    """Return the weights of a logistic regression by Newton's steps; the first is not penalised."""
    weights = np.zeros(terms.shape[1])
    penalty = np.full(terms.shape[1], _PENALTY)
    penalty[0] = 1e-3  # Where all are right, or none: finite all the same.
    for _ in range(_TURNS):
        shares = 1.0 / (1.0 + np.exp(-np.clip(terms @ weights, -30.0, 30.0)))
        slope = terms.T @ (shares - scores) + penalty * weights
        bend = (terms * (shares * (1.0 - shares))[:, None]).T @ terms + np.diag(penalty)
        step = np.linalg.solve(bend, slope)
        weights -= step * min(1.0, 4.0 / max(1e-12, float(np.abs(step).max())))
        if float(np.abs(step).max()) < _CLOSE:
            break
    return weights
