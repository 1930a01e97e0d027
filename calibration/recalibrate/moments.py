"""Least squares from sums alone: what rows would have given, and cluster-robust errors.

With X'X, X'y and y'y of each scrape interval g (a cluster) the coefficients b, the residual sum of
squares and the scores X_g'(y_g - X_g b) are exact; so is the sandwich of Liang and Zeger (1986)
with the correction G/(G-1) (n-1)/(n-k) (CR1, as statsmodels' cov_type="cluster"). Intervals use
Student's t with G - 1 degrees of freedom (Cameron and Miller, 2015).

A prior (mean b0, precision P) joins as further rows would: with s² the residual variance,

    b = (X'X/s² + P)^-1 (X'y/s² + P b0)

With A for the inverse, A = A (X'X/s²) A + A P A parts what is known of each coefficient between
rows and prior; the prior's share of that diagonal is 0 for the window's rows alone, 1 for the prior
alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtrit

from calibration.recalibrate.sums import SumBlock, format_term, parse_powers

Floats = NDArray[np.float64]

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


@dataclass(frozen=True, slots=True)
class ClusterMoments:
    """The cross products of `columns` and y, per cluster."""

    columns: tuple[str, ...]
    xx: Floats
    xy: Floats
    yy: Floats

    @classmethod
    def from_block(cls, block: SumBlock, columns: Sequence[str], y: str) -> Self:
        """Take them out of a block that has every product of the columns, and of them with y."""

        def get_product(one: str, two: str) -> Floats:
            return block.get_term(format_term(parse_powers(one) + parse_powers(two)))

        return cls(
            tuple(columns),
            np.stack([[get_product(a, b) for b in columns] for a in columns]).transpose(2, 0, 1),
            np.stack([get_product(a, y) for a in columns]).T,
            get_product(y, y),
        )

    def select_columns(self, at: Sequence[int]) -> "ClusterMoments":
        """Return those of some of the columns."""
        chosen = list(at)
        names = tuple(self.columns[one] for one in chosen)
        return ClusterMoments(names, self.xx[:, chosen][:, :, chosen], self.xy[:, chosen], self.yy)

    @property
    def n(self) -> int:
        """Rows: the first column is ones."""
        return round(float(self.xx[:, 0, 0].sum()))

    @property
    def column_means(self) -> Floats:
        """Each column's mean."""
        total = self.xx[:, 0].sum(axis=0)
        return np.asarray(total / total[0])

    @property
    def mean_y(self) -> float:
        """The mean of y."""
        return float(self.xy[:, 0].sum() / self.xx[:, 0, 0].sum())

    @property
    def standard_deviations(self) -> Floats:
        """Each column's standard deviation."""
        square = np.diagonal(self.xx.sum(axis=0)) / self.n
        return np.asarray(np.sqrt(np.maximum(square - self.column_means**2, 0.0)))

    @property
    def column_scales(self) -> Floats:
        """Each column's root mean square; 1 for a column of zeros."""
        square = np.diagonal(self.xx.sum(axis=0)) / self.n
        return np.asarray(np.sqrt(np.where(square > 0.0, square, 1.0)))

    def subtract_prediction(self, coefficients: Floats) -> "ClusterMoments":
        """Return the same with y - X·coefficients for y."""
        fit = self.xx @ coefficients
        return ClusterMoments(
            self.columns,
            self.xx,
            self.xy - fit,
            self.yy - 2.0 * self.xy @ coefficients + fit @ coefficients,
        )

    def sum_squared_residuals(self, coefficients: Floats) -> float:
        """Return the sum of squared residuals."""
        return max(0.0, float(self.subtract_prediction(coefficients).yy.sum()))

    def compute_condition(self) -> float:
        """Return the condition number of the columns, each scaled to unit length."""
        _, scaled = self._scale_columns()
        low, high = np.linalg.eigvalsh(scaled)[[0, -1]]
        return float(np.sqrt(high / low)) if low > 0.0 else float("inf")

    def compute_tolerance(self, at: int) -> float:
        """Return the share of a column's squares that the other columns do not explain."""
        _, scaled = self._scale_columns()
        if self.compute_condition() > MAX_CONDITION:
            return 0.0
        return float(1.0 / np.linalg.inv(scaled)[at, at])

    def compute_between_share(self, at: int, *, per: int) -> float:
        """Return the share of a column's own variation that lies between the clusters.

        Its own is what the columns before it leave over; between clusters is what the cluster's
        mean of it per unit of column `per` explains, less what it would by chance.
        """
        total = self.xx.sum(axis=0)
        share = self.xx[:, 0, at] / np.maximum(self.xx[:, 0, per], np.finfo(float).tiny)
        others = list(range(at))
        squares = np.diagonal(total)[others]
        scale = np.sqrt(np.where(squares > 0.0, squares, 1.0))
        bread = np.linalg.pinv(total[np.ix_(others, others)] / np.outer(scale, scale))
        mean = share @ self.xx[:, per, :][:, others] / scale  # the cluster's mean, with the others
        own = total[at, others] / scale
        both = float(share @ self.xx[:, per, at]) - mean @ bread @ own
        explaining = float(share**2 @ self.xx[:, per, per]) - mean @ bread @ mean
        spread = float(total[at, at]) - own @ bread @ own
        if not (explaining > 0.0 and spread > 0.0):
            return 0.0
        explained = min(1.0, float(both**2 / explaining / spread))
        return 1.0 - (1.0 - explained) * self.n / max(1.0, self.n - len(self.xx))

    def solve_least_squares(self, prior: CoefficientPrior | None = None) -> ClusterRobustFit:
        """Solve. Raises Singular where neither the rows nor the prior tell the columns apart."""
        n, clusters, k = self.n, len(self.xx), len(self.columns)
        if n <= k or clusters < 2:  # noqa: PLR2004 - a spread takes two
            raise SingularMoments(f"{n} requests in {clusters} scrapes for {k} coefficients")
        scale, scaled = self._scale_columns()
        target = self.xy.sum(axis=0) / scale / n
        condition = self.compute_condition()
        if prior is None:
            if condition > MAX_CONDITION:
                raise SingularMoments("the columns cannot be told apart")
            bread = np.linalg.inv(scaled)
            solution = np.linalg.solve(scaled, target)
            share = np.zeros(k)
            pull, variance = np.zeros((k, k)), 0.0
        else:
            # In units of n/s², so that the rows' part stays the scaled X'X.
            variance = self.estimate_variance()
            pull = prior.precision / np.outer(scale, scale) * variance / n
            if not np.linalg.cond(scaled + pull) < MAX_CONDITION**2:
                raise SingularMoments(
                    "the columns cannot be told apart, nor does the live profile help"
                )
            bread = np.linalg.inv(scaled + pull)
            solution = np.linalg.solve(scaled + pull, target + pull @ (prior.mean * scale))
            share = np.diag(bread @ pull @ bread) / np.diag(bread)
        b = solution / scale
        left = self.subtract_prediction(b)
        scores = left.xy / scale / n
        correction = clusters / (clusters - 1.0) * (n - 1.0) / (n - k)
        half = scores @ bread  # squared afterwards, so that rounding gives no variance below 0
        known = bread @ pull @ bread * variance / n
        covariance = (correction * half.T @ half + known) / np.outer(scale, scale)
        np.fill_diagonal(covariance, np.maximum(np.diag(covariance), 0.0))
        squares = max(0.0, float(left.yy.sum()))
        total = float(self.yy.sum()) - n * self.mean_y**2
        reach = compute_interval_factor(clusters) * np.sqrt(np.diag(covariance))
        return ClusterRobustFit(
            coefficients=b,
            covariance=covariance,
            low=b - reach,
            high=b + reach,
            n=n,
            clusters=clusters,
            r2=1.0 - squares / total if total > 0.0 else 0.0,
            rmse=float(np.sqrt(squares / n)),
            condition=condition,
            prior_share=share,
        )

    def estimate_variance(self) -> float:
        """Return the residual variance of the least squares without a prior."""
        n, k = self.n, len(self.columns)
        scale, scaled = self._scale_columns()
        target = self.xy.sum(axis=0) / scale / n
        b = np.linalg.lstsq(scaled, target, rcond=1e-12)[0] / scale
        least = np.finfo(float).eps * float(self.yy.sum())
        return max(self.sum_squared_residuals(b), least) / (n - k)

    def _scale_columns(self) -> tuple[Floats, Floats]:
        scale = self.column_scales
        return scale, self.xx.sum(axis=0) / np.outer(scale, scale) / self.n


def compute_interval_factor(clusters: int) -> float:
    """Return what a standard error is multiplied with for half a 95% interval."""
    return float(stdtrit(clusters - 1.0, 0.975))


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
