"""What least squares gives: coefficients with their covariance, intervals, and a Wald test.

Intervals use Student's t with one less degree of freedom than there are clusters (Cameron and
Miller, 2015).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import fdtrc, stdtrit

from calibration.arrays import Floats

MAX_CONDITION = 1e6
"""Above it (columns scaled to unit length) sums in doubles can no longer tell the columns apart."""


class SingularMoments(ValueError):
    """The columns cannot be told apart, or there are too few rows or clusters."""


class CoefficientPrior(NamedTuple):
    """What was known before the window: coefficients, and their precision (a zero row: nothing)."""

    mean: Floats
    precision: Floats


class WaldTest(NamedTuple):
    """A Wald test that restrictions hold: F(k, G - 1) and its p-value."""

    f: float
    p: float
    k: int
    freedom: int


@dataclass(frozen=True, slots=True)
class ClusterRobustFit:
    """Least squares; arrays follow the columns. `rmse` is sqrt(SSR/n), in y's unit."""

    coefficients: Floats
    covariance: Floats
    low: Floats
    high: Floats
    n: int
    clusters: int
    r2: float
    rmse: float
    condition: float
    prior_share: Floats

    @property
    def standard_errors(self) -> Floats:
        """Standard errors."""
        return np.sqrt(np.diag(self.covariance))

    def compute_half_interval(self, row: Floats) -> float:
        """Return half the 95% interval of the prediction at a row of the columns."""
        variance = float(row @ self.covariance @ row)
        return compute_interval_factor(self.clusters) * math.sqrt(max(0.0, variance))


def compute_interval_factor(clusters: int, confidence: float = 0.95) -> float:
    """Return what a standard error is multiplied with for half an interval of this confidence."""
    return float(stdtrit(clusters - 1.0, (1.0 + confidence) / 2.0))


def compute_wald_test(solved: ClusterRobustFit) -> WaldTest | None:
    """Test that every coefficient is 0; None where there are too few clusters to tell."""
    k, freedom = len(solved.coefficients), solved.clusters - 1
    error = solved.standard_errors
    if freedom <= k or not (error > 0.0).all():
        return None
    t = solved.coefficients / error
    correlation = solved.covariance / np.outer(error, error)
    f = float(t @ np.linalg.solve(correlation, t)) / k
    return WaldTest(f, float(fdtrc(k, freedom, max(f, 0.0))), k, freedom)
