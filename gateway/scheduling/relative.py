"""relative: energy and time as powers of ten above the cheapest candidate, accuracy as it is.

Rules: ten times the joules weigh as much as being wrong instead of right; the difference between
two candidates depends on those two alone, so one that is not chosen never changes who is. That
and independence of units are what a min-max over the present candidates cannot give.
"""

import math
from collections.abc import Sequence


def log_ratios(values: Sequence[float]) -> list[float]:
    """Return `log10(x / min)` for each value (all above 0); same length and order."""
    low = min(values)
    log10 = math.log10
    return [log10(value / low) for value in values]


def normalise_costs(
    accuracies: Sequence[float], joules: Sequence[float], seconds: Sequence[float]
) -> tuple[list[float], list[float], list[float]]:
    """Return the (accuracy, energy, time) costs, each >= 0, input order kept."""
    return [1.0 - accuracy for accuracy in accuracies], log_ratios(joules), log_ratios(seconds)
