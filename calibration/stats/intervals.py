"""95% intervals: Wilson's for shares of correct answers, percentiles for bootstrap replicates."""

from collections.abc import Sequence
from math import isnan, sqrt
from typing import NamedTuple

import numpy as np

from calibration.arrays import Floats

Z_95 = 1.959963984540054  # the normal quantile of 97.5%


class ConfidenceInterval(NamedTuple):
    """A 95% interval, ends included."""

    low: float
    high: float


def compute_wilson_interval(correct: float, n: int) -> ConfidenceInterval:
    """Return Wilson's score interval for a share (Wilson 1927; no continuity correction).

    `correct` may be a fraction where each of the n prompts scores the mean of its samples: a
    score within [0, 1] varies at most as a yes-or-no of the same mean does, so the interval is
    then conservative. Raises ValueError for n of 0 or a count outside 0 to n.
    """
    if n < 1 or not 0.0 <= correct <= n:
        raise ValueError(f"{correct} of {n} is no share")
    p, z2 = correct / n, Z_95 * Z_95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return ConfidenceInterval(low, high)


def compute_normal_interval(value: float, stderr: float) -> ConfidenceInterval | None:
    """Return value +- 1.96 standard errors within [0, 1]; None without a finite stderr."""
    if isnan(stderr) or stderr < 0.0:
        return None
    return ConfidenceInterval(max(0.0, value - Z_95 * stderr), min(1.0, value + Z_95 * stderr))


def compute_mean_interval(parts: Sequence[tuple[float, int]]) -> ConfidenceInterval:
    """Return the interval of the unweighted mean of shares, each (value, n).

    Normal, with two successes and two failures added to each part (Agresti and Coull), so that a
    part at 0 or 1 has a non-zero variance.
    """
    value = sum(share for share, _ in parts) / len(parts)
    variance = 0.0
    for share, n in parts:
        p = (share * n + 2) / (n + 4)
        variance += p * (1 - p) / (n + 4)
    half = Z_95 * sqrt(variance) / len(parts)
    return ConfidenceInterval(max(0.0, value - half), min(1.0, value + half))


def compute_percentile_interval(replicates: Floats) -> ConfidenceInterval:
    """Return the 2.5th and 97.5th percentile of bootstrap replicates."""
    low, high = np.percentile(replicates, [2.5, 97.5])
    return ConfidenceInterval(float(low), float(high))
