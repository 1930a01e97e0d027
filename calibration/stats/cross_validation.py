"""k-fold cross-validation of a cost form: how far off it is on rows it has not seen.

The folds are the same for every form and on every machine: rows are dealt by a permutation with a
fixed seed. The loss is what the fit minimises: the squared error, each divided by the row's size
where there is one.
"""

from dataclasses import dataclass

import numpy as np

from calibration.arrays import Floats

_SEED = 20_240_501
_ROUNDING_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class OutOfFoldErrors:
    """Out-of-fold errors: RMSE in the cost's unit, and absolute percentage errors (0.1 = 10%)."""

    rmse: float
    median_ape: float
    p90_ape: float
    loss: float
    """Mean of the squared errors, each over its row's size."""
    mean_square: float
    """Mean square of y over the row's size, against which differences are told from rounding."""


def cross_validate(
    x: Floats, y: Floats, folds: int, sizes: Floats | None = None
) -> OutOfFoldErrors:
    """Predict each row by a fit on the other folds; percentage errors leave out y = 0.

    `sizes` (n) make the loss relative: each row's error counts in its own.
    """
    size = np.ones(len(y)) if sizes is None else sizes
    x, y = x / size[:, None], y / size
    n, k = x.shape
    scaled = x / np.sqrt(np.mean(x**2, axis=0))
    fold = np.empty(n, dtype=int)
    fold[np.random.default_rng(_SEED).permutation(n)] = np.arange(n) % folds
    grams = np.empty((folds, k, k))
    sums = np.empty((folds, k))
    for number in range(folds):
        part = scaled[fold == number]
        grams[number] = part.T @ part
        sums[number] = part.T @ y[fold == number]
    predicted = np.empty(n)
    gram, total = grams.sum(axis=0), sums.sum(axis=0)
    for number in range(folds):
        # lstsq of the normal equations: a fold that leaves a term undetermined still gives a fit.
        solved = np.linalg.lstsq(gram - grams[number], total - sums[number], rcond=None)[0]
        predicted[fold == number] = scaled[fold == number] @ solved
    error = np.abs(y - predicted)
    known = y > 0.0
    shares = error[known] / y[known]
    return OutOfFoldErrors(
        rmse=float(np.sqrt(np.mean((error * size) ** 2))),
        median_ape=float(np.median(shares)) if shares.size else float("nan"),
        p90_ape=float(np.quantile(shares, 0.9)) if shares.size else float("nan"),
        loss=float(np.mean(error**2)),
        mean_square=float(np.mean(y**2)),
    )


def improves_rmse(simple: OutOfFoldErrors, rich: OutOfFoldErrors) -> bool:
    """Tell whether the richer form's out-of-fold loss is lower by more than rounding."""
    return simple.loss - rich.loss > _ROUNDING_TOLERANCE * (simple.loss + simple.mean_square)
