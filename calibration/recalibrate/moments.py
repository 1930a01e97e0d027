"""Least squares from sums alone: what rows would have given, and cluster-robust errors.

All sums are weighted by 1/prediction², and brought to a mean weight of 1. With X'X, X'y and y'y of
each cluster g the coefficients b, the residual sum of
squares and the scores X_g'(y_g - X_g b) are exact; so is the sandwich of Liang and Zeger (1986)
with the correction G/(G-1) (n-1)/(n-k) (CR1, as statsmodels' cov_type="cluster"). Intervals use
Student's t with G - 1 degrees of freedom (Cameron and Miller, 2015).

A prior (mean b0, precision P) joins as further rows would: with s² the residual variance,

    b = (X'X/s² + P)^-1 (X'y/s² + P b0)

With A for the inverse, A = A (X'X/s²) A + A P A parts what is known of each coefficient between
rows and prior; the prior's share of that diagonal is 0 for the window's rows alone, 1 for the prior
alone.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from calibration.arrays import Floats
from calibration.recalibrate.faults import format_term, parse_powers
from calibration.recalibrate.solved import (
    MAX_CONDITION,
    ClusterRobustFit,
    CoefficientPrior,
    SingularMoments,
)
from calibration.recalibrate.sums import SumBlock
from gateway.scheduling.regression_terms import COLUMNS


def _find_correction(clusters: int, n: int, k: int) -> float:
    """Return CR1's correction of an error."""
    return float(np.sqrt(clusters / (clusters - 1.0) * (n - 1.0) / (n - k)))


@dataclass(frozen=True, slots=True)
class ClusterMoments:
    """The weighted cross products of k columns, y and t, per cluster; the mean weight is 1."""

    xx: Floats
    """G x k x k."""
    xy: Floats
    """G x k."""
    yy: Floats
    """G."""
    xt: Floats
    """G x k, with the ordinary part of y less the live prediction: see `regression_terms`."""

    @classmethod
    def from_block(cls, block: SumBlock) -> Self:
        """Take them out of a block of costs: the columns are `regression_terms.COLUMNS`."""
        columns = [parse_powers(column) for column in COLUMNS]
        weight, cost, ordinary = (Counter({letter: 1}) for letter in "wyt")

        def get_product(*factors: Counter[str]) -> Floats:
            return block.get_term(format_term(sum(factors, weight)))

        total = block.sum_term("w")
        scale = block.n / total if total > 0.0 else 1.0
        return cls(
            scale
            * np.stack([[get_product(a, b) for b in columns] for a in columns]).transpose(2, 0, 1),
            scale * np.stack([get_product(a, cost) for a in columns]).T,
            scale * get_product(cost, cost),
            scale * np.stack([get_product(a, ordinary) for a in columns]).T,
        )

    def combine_columns(self, columns: Floats) -> "ClusterMoments":
        """Return those of other columns, each a combination (k x new) of these."""
        return ClusterMoments(
            columns.T @ self.xx @ columns, self.xy @ columns, self.yy, self.xt @ columns
        )

    def select_clusters(self, chosen: NDArray[np.bool_] | slice) -> "ClusterMoments":
        """Return some of the clusters."""
        return ClusterMoments(self.xx[chosen], self.xy[chosen], self.yy[chosen], self.xt[chosen])

    @property
    def n(self) -> int:
        """Rows: the first column is ones, and the mean weight 1."""
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
            self.xx,
            self.xy - fit,
            self.yy - 2.0 * self.xy @ coefficients + fit @ coefficients,
            self.xt,
        )

    def compute_losses(self, coefficients: Floats) -> Floats:
        """Return the sum of squared residuals of each cluster."""
        return np.maximum(0.0, self.subtract_prediction(coefficients).yy)

    def sum_squared_predictions(self, coefficients: Floats) -> float:
        """Return the sum of squared predictions."""
        return max(0.0, float(coefficients @ self.xx.sum(axis=0) @ coefficients))

    def sum_squared_residuals(self, coefficients: Floats) -> float:
        """Return the sum of squared residuals."""
        return float(self.compute_losses(coefficients).sum())

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
        return float(1.0 - (1.0 - explained) * self.n / max(1.0, self.n - len(self.xx)))

    def instrument_column(self, at: int, *, per: int) -> "ClusterMoments":
        """Return the same with a column's noise within clusters taken out of the normal equations.

        In the equation of column `at` its own value is replaced by its cluster's mean per unit of
        column `per`, times that: a grouping estimator (Wald, 1940; Durbin, 1954). Where the column
        is a noisy reading, least squares draws its coefficient to zero, and this does not. Only
        what varies between clusters counts then, and `xx` is no longer symmetrical.
        """
        share = self.xx[:, 0, at] / np.maximum(self.xx[:, 0, per], np.finfo(float).tiny)
        xx, xy = self.xx.copy(), self.xy.copy()
        xx[:, at] = share[:, None] * self.xx[:, per]
        xy[:, at] = share * self.xy[:, per]
        return ClusterMoments(xx, xy, self.yy, self.xt)

    def solve_least_squares(
        self, prior: CoefficientPrior | None = None, plain: "ClusterMoments | None" = None
    ) -> ClusterRobustFit:
        """Solve. Raises SingularMoments where rows and prior cannot tell the columns apart.

        Where these are of `instrument`, `plain` is what they were before.
        """
        plain = plain or self
        n, clusters, k = self.n, len(self.xx), self.xx.shape[1]
        if n <= k or clusters < 2:  # noqa: PLR2004 - a spread takes two
            raise SingularMoments(f"{n} requests in {clusters} blocks for {k} coefficients")
        scale = plain.column_scales
        scaled = self.xx.sum(axis=0) / np.outer(scale, scale) / n
        target = self.xy.sum(axis=0) / scale / n
        condition = plain.compute_condition()
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
        influences = scores @ bread.T / scale * _find_correction(clusters, n, k)
        known = bread @ pull @ bread * variance / n / np.outer(scale, scale)
        np.fill_diagonal(known, np.maximum(np.diag(known), 0.0))
        squares = plain.sum_squared_residuals(b)
        total = float(self.yy.sum()) - n * self.mean_y**2
        return ClusterRobustFit(
            coefficients=b,
            influences=influences,
            known=known,
            covariance=influences.T @ influences + known,
            freedom=clusters - 1,
            n=n,
            clusters=clusters,
            r2=1.0 - squares / total if total > 0.0 else 0.0,
            rmse=float(np.sqrt(squares / n)),
            condition=condition,
            prior_share=share,
        )

    def solve_with_fixed_coefficient(
        self, at: int, value: float, shifts: Floats, variance: float = 0.0
    ) -> ClusterRobustFit:
        """Solve for the other columns, column `at` held to a coefficient known from elsewhere.

        `shifts` (G) is what each cluster adds to that coefficient's own error, where it was scaled
        by these very rows; zeros where it was not. `variance` is its own from elsewhere, 0 where
        that is not known. Raises SingularMoments.
        """
        k = self.xx.shape[1]
        rest = [place for place in range(k) if place != at]
        part = ClusterMoments(
            self.xx[:, rest][:, :, rest],
            self.xy[:, rest] - value * self.xx[:, rest, at],
            self.yy - 2.0 * value * self.xy[:, at] + value**2 * self.xx[:, at, at],
            self.xt[:, rest],
        )
        found = part.solve_least_squares()
        b = np.insert(found.coefficients, at, value)
        scale, scaled = part._scale_columns()
        scores = part.subtract_prediction(found.coefficients).xy
        scores = scores - np.outer(shifts, self.xx[:, rest, at].sum(axis=0))
        each = np.insert(
            scores / scale / self.n @ np.linalg.inv(scaled) / scale, at, shifts, axis=1
        )
        clusters = len(self.xx)
        each *= _find_correction(clusters, self.n, k)
        # By how much the others give way where the coefficient is another: the delta method.
        given = np.linalg.inv(scaled) @ (self.xx[:, rest, at].sum(axis=0) / scale / self.n) / scale
        way = np.insert(-given, at, 1.0)
        known = variance * np.outer(way, way)
        total = float(self.yy.sum()) - self.n * self.mean_y**2
        squares = self.sum_squared_residuals(b)
        return ClusterRobustFit(
            coefficients=b,
            influences=each,
            known=known,
            covariance=each.T @ each + known,
            freedom=clusters - 1,
            n=self.n,
            clusters=clusters,
            r2=1.0 - squares / total if total > 0.0 else 0.0,
            rmse=float(np.sqrt(squares / self.n)),
            condition=found.condition,
            prior_share=np.insert(np.zeros(k - 1), at, 1.0),
        )

    def estimate_variance(self) -> float:
        """Return the residual variance of the least squares without a prior."""
        n, k = self.n, self.xx.shape[1]
        scale, scaled = self._scale_columns()
        target = self.xy.sum(axis=0) / scale / n
        b = np.linalg.lstsq(scaled, target, rcond=1e-12)[0] / scale
        least = np.finfo(float).eps * float(self.yy.sum())
        return float(max(self.sum_squared_residuals(b), least) / (n - k))

    def _scale_columns(self) -> tuple[Floats, Floats]:
        scale = self.column_scales
        return scale, self.xx.sum(axis=0) / np.outer(scale, scale) / self.n
