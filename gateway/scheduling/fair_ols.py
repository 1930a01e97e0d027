"""fair-ols: min-max energy and time over the candidates, accuracy cost as it is.

Rules: the best candidate of a metric costs 0 and the worst just under 1; accuracy keeps its own
unit (a share of right answers), so that a small difference in accuracy stays small.
"""

from collections.abc import Sequence

EPS = 1e-9
"""Keeps a zero-width range from dividing by zero."""


def min_max(values: Sequence[float]) -> list[float]:
    """Return `(x - min) / (max - min + eps)` for each value; same length and order."""
    low = min(values)
    width = max(values) - low + EPS
    return [(value - low) / width for value in values]


def normalise_costs(
    accuracies: Sequence[float], joules: Sequence[float], seconds: Sequence[float]
) -> tuple[list[float], list[float], list[float]]:
    """Return the normalised (accuracy, energy, time) costs, each in [0, 1], input order kept."""
    return [1.0 - accuracy for accuracy in accuracies], min_max(joules), min_max(seconds)
