"""hybrid: five stages put accuracy cost, energy and time on one scale of equal variance.

z-score (population sd); signed log `sgn(z) log1p(|z|)`; min-max to [0, 1]; softmax; rebasing to
unit variance with the best at 0. Each stage is increasing, so the order of the input is kept;
the first removes the unit, so the result does not change when a metric's unit does.
"""

import math
from collections.abc import Sequence

_SAME = 1e-12
"""Relative spread under which values count as equal: below it a z-score is rounding noise."""


def rebase_costs(values: Sequence[float]) -> list[float]:
    """Return the rebased costs of `values` (lower is better), all 0 where they are equal."""
    scale = max(abs(value) for value in values)
    if scale == 0.0:
        return [0.0] * len(values)
    # Dividing by the largest first keeps squares finite for any finite input.
    scaled = [value / scale for value in values]
    mean, sd = _compute_moments(scaled)
    if max(scaled) - min(scaled) <= _SAME:
        return [0.0] * len(values)
    logged = [math.copysign(math.log1p(abs((value - mean) / sd)), value - mean) for value in scaled]
    low = min(logged)
    width = max(logged) - low
    exps = [math.exp((value - low) / width) for value in logged]
    total = math.fsum(exps)
    soft = [value / total for value in exps]
    _, sd = _compute_moments(soft)
    best = min(soft)
    return [(value - best) / sd for value in soft]


def normalise_costs(
    accuracies: Sequence[float], joules: Sequence[float], seconds: Sequence[float]
) -> tuple[list[float], list[float], list[float]]:
    """Return the rebased (accuracy, energy, time) costs, each >= 0, input order kept."""
    return (
        rebase_costs([1.0 - accuracy for accuracy in accuracies]),
        rebase_costs(joules),
        rebase_costs(seconds),
    )


def _compute_moments(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the population standard deviation."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
