"""From a head's value to a share of right answers: Platt's sigmoid, or isotonic over bins.

Either becomes a rising line through a few points, which is what a profile holds. What looks at all
models' values at once is in `joint_calibration`.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from calibration.arrays import Floats

ALONE = ("platt", "isotonic")
_POINTS = 33
_BINS = 15
_LEAST_GAP = 1e-6

Points = list[tuple[float, float]]


def fit_points(values: Floats, scores: Floats, kind: str) -> Points:
    """Return rising (value, share) points."""
    return _fit_platt(values, scores) if kind == "platt" else _fit_isotonic(values, scores)


def evaluate_points(points: Points, values: Floats) -> Floats:
    """Return the share at each value; flat beyond the ends."""
    x, y = zip(*points, strict=True)
    found: Floats = np.interp(values, x, y)
    return found


def calibrate_held_out(
    values: Floats, scores: Floats, folds: np.ndarray, kinds: Sequence[str]
) -> tuple[str, Floats]:
    """Return the kind with the least squared error on rows it had not seen, and their shares."""
    found = [_cross_calibrate(values, scores, folds, kind) for kind in kinds]
    errors = [float(np.nanmean((shares - scores) ** 2)) for shares in found]
    best = int(np.argmin(errors))
    return kinds[best], found[best]


def apply_points(values: Floats, scores: Floats, kind: str) -> Points:
    """Return the points fitted on every labelled row."""
    labelled = np.isfinite(scores)
    return fit_points(values[labelled], scores[labelled], kind)


def _cross_calibrate(values: Floats, scores: Floats, folds: np.ndarray, kind: str) -> Floats:
    """Return shares, each fold's from points fitted on the other folds."""
    found = np.zeros_like(values)
    for fold in np.unique(folds):
        out = folds == fold
        learnt = ~out & np.isfinite(scores)
        found[out] = evaluate_points(fit_points(values[learnt], scores[learnt], kind), values[out])
    return found


def _fit_platt(values: Floats, scores: Floats) -> Points:
    """Platt (1999), with his targets that keep a perfect separation finite."""
    centre, scale = float(values.mean()), float(max(values.std(), 1e-6))
    z = (values - centre) / scale
    right = float(scores.sum())
    high, low = (right + 1.0) / (right + 2.0), 1.0 / (len(scores) - right + 2.0)
    targets = scores * high + (1.0 - scores) * low

    def loss(given: Floats) -> tuple[float, Floats]:
        logit = given[0] + given[1] * z
        error = 1.0 / (1.0 + np.exp(-np.clip(logit, -500, 500))) - targets
        value = float((np.logaddexp(0.0, logit) - targets * logit).mean())
        return value, np.array([error.mean(), (error * z).mean()])

    found = minimize(
        loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(None, None), (0.0, None)]
    ).x
    grid = np.linspace(float(z.min()) - 0.5, float(z.max()) + 0.5, _POINTS)
    shares = 1.0 / (1.0 + np.exp(-np.clip(found[0] + found[1] * grid, -500, 500)))
    return list(zip((centre + scale * grid).tolist(), shares.tolist(), strict=True))


def _fit_isotonic(values: Floats, scores: Floats) -> Points:
    """Pool adjacent violators over bins of equal numbers of rows."""
    order = np.argsort(values, kind="stable")
    blocks: list[list[float]] = []
    for rows in np.array_split(order, min(_BINS, len(order))):
        n = float(len(rows))
        blocks.append([float(values[rows].mean()), float(scores[rows].mean()), n])
        while len(blocks) > 1 and (
            blocks[-1][1] <= blocks[-2][1] or blocks[-1][0] - blocks[-2][0] < _LEAST_GAP
        ):
            one, two = blocks.pop(), blocks.pop()
            n = one[2] + two[2]
            merged = [(one[at] * one[2] + two[at] * two[2]) / n for at in (0, 1)]
            blocks.append([*merged, n])
    return [(value, min(1.0, max(0.0, share))) for value, share, _ in blocks]
