"""What least squares gives: coefficients with their covariance, intervals, and a Wald test.

Intervals use Student's t with one less degree of freedom than there are clusters (Cameron and
Miller, 2015), which takes clusters to be independent. Neighbouring blocks of time are not, where
what they share lasts about as long as a block. `smooth_over_time` allows for that: with the
clusters' influences u_1 … u_G in order of time, the variance of their sum is the mean of L_j L_j'
over the first v = G/2 cosines, the equal-weighted cosine estimator of a long-run variance, with
Student's t and v degrees of freedom (Müller, 2007; Lazarus, Lewis, Stock and Watson, 2018):

    L_j = sqrt(2) sum_g cos(pi j (g - 1/2) / G) u_g

The fastest of these cosines has a period of four blocks: what is shared for longer counts in full.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

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
    influences: Floats
    """G x k: what each cluster moves them by, in the clusters' order, with CR1's correction."""
    known: Floats
    """The part of the covariance that does not come from the clusters: a prior's."""
    covariance: Floats
    freedom: int
    """Degrees of freedom of an interval."""
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

    @property
    def low(self) -> Floats:
        """Lower ends of the 95% intervals."""
        return self.coefficients - compute_interval_factor(self.freedom) * self.standard_errors

    @property
    def high(self) -> Floats:
        """Upper ends of the 95% intervals."""
        return self.coefficients + compute_interval_factor(self.freedom) * self.standard_errors

    def compute_half_interval(self, row: Floats) -> float:
        """Return half the 95% interval of the prediction at a row of the columns."""
        variance = float(row @ self.covariance @ row)
        return compute_interval_factor(self.freedom) * math.sqrt(max(0.0, variance))

    def smooth_over_time(self) -> Self:
        """Return the same with errors that hold where neighbouring clusters are correlated.

        The clusters have to stand in order of time.
        """
        count = len(self.influences)
        cosines = max(1, count // 2)
        angles = np.pi * np.outer(np.arange(1, cosines + 1), np.arange(count) + 0.5) / count
        waves = np.sqrt(2.0) * np.cos(angles) @ self.influences
        covariance = waves.T @ waves / cosines + self.known
        return replace(self, covariance=covariance, freedom=cosines)


def compute_interval_factor(freedom: int, confidence: float = 0.95) -> float:
    """Return what a standard error is multiplied with for half an interval of this confidence."""
    return float(stdtrit(float(freedom), (1.0 + confidence) / 2.0))


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
