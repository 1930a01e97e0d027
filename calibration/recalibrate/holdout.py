"""What a refit is worth on the part of a window that it was not fitted to.

The window's blocks of time are cut into four parts; each is predicted by a fit to the other three,
and by the live profile. The gain of a block is the difference of their squared relative errors, and
its standard error comes from the spread of that difference between blocks (Diebold and Mariano,
1995, with blocks for observations).

Least squares follows means, and a few requests far off move a mean as a change of the model does:
5% of latencies five times too long lift it by 20%. So it is asked, too, what ordinary requests
show: `t`, what each cost over its live prediction, held to a third of that prediction. Where the
refit is right, t follows it; where a few rows made the refit, it hardly does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibration.arrays import Floats
from calibration.recalibrate.moments import ClusterMoments
from calibration.recalibrate.solved import SingularMoments, compute_interval_factor
from gateway.scheduling.regression_terms import ORDINARY

PARTS = 4
LEAST_ERRORS = 2.0
"""How many standard errors a gain must exceed."""


@dataclass(frozen=True, slots=True)
class HoldoutComparison:
    """How much better a refit predicts what it was not fitted to.

    `gain` is the mean difference of squared relative errors, `error` its standard error, `blocks`
    how many blocks it comes from. `ordinary` is the share of the change that ordinary requests
    show, about 1 where all of them do.
    """

    gain: float
    error: float
    blocks: int
    ordinary: float

    @property
    def live_error(self) -> float:
        """By how much the live profile is off beyond the noise, as a share (root mean square)."""
        return float(np.sqrt(max(0.0, self.gain)))

    @property
    def is_significant(self) -> bool:
        """Whether the gain is no chance: more than two standard errors, more for few blocks."""
        if self.blocks <= 1:
            return False
        return self.gain > max(LEAST_ERRORS, compute_interval_factor(self.blocks - 1)) * self.error


def compare_on_holdout(
    whole: ClusterMoments, live: Floats, new: Floats, fit: Callable[[ClusterMoments], Floats]
) -> HoldoutComparison:
    """Compare; `live` and `new` are coefficients of the sums' columns, `fit` gives such of a part.

    Raises SingularMoments where a part less than the whole cannot be fitted.
    """
    blocks = len(whole.xx)
    if blocks < PARTS:
        raise SingularMoments(f"{blocks} blocks of time, at least {PARTS} needed to hold some out")
    counts = whole.xx[:, 0, 0]
    part = np.minimum(PARTS - 1, (PARTS * (np.cumsum(counts) - counts / 2) / counts.sum())).astype(
        int
    )
    gains = whole.compute_losses(live)
    for number in range(PARTS):
        out = part == number
        if out.any():
            gains[out] -= whole.select_clusters(out).compute_losses(
                fit(whole.select_clusters(~out))
            )
    size = whole.sum_squared_predictions(new)
    total = float(gains.sum())
    spread = gains - total * counts / counts.sum()
    error = float(np.sqrt(blocks / (blocks - 1.0) * (spread**2).sum()))
    if size <= 0.0:
        return HoldoutComparison(0.0, float("inf"), blocks, 0.0)
    return HoldoutComparison(
        total / size, error / size, blocks, _compute_ordinary_share(whole, live, new)
    )


def _compute_ordinary_share(whole: ClusterMoments, live: Floats, new: Floats) -> float:
    """Return the share of the change that ordinary requests show."""
    change = new - live
    length, predicted = (
        np.sqrt(whole.sum_squared_predictions(change)),
        np.sqrt(whole.sum_squared_predictions(live)),
    )
    if length <= 0.0 or predicted <= 0.0:
        return 0.0
    shown = float(whole.xt.sum(axis=0) @ change) / (length * predicted)
    return float(shown / min(length / predicted, 1.0 / ORDINARY))
