"""What a head's score means as a share of right answers: by itself, or beside the other models'.

Both kinds are fitted on rows that training had not seen, and are flat beyond the scores seen there.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScoreCalibration:
    """A rising line through (x, y) points; what a score means as a share."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def apply(self, score: float, _middle: float = 0.0) -> float:
        """Return the share of right answers among prompts of this score."""
        x, y = self.x, self.y
        at = bisect_right(x, score)
        if at == 0:
            return y[0]
        if at == len(x):
            return y[-1]
        part = (score - x[at - 1]) / (x[at] - x[at - 1])
        return y[at - 1] + part * (y[at] - y[at - 1])


@dataclass(frozen=True, slots=True)
class JointCalibration:
    """The logit of the share is quadratic in u = score - middle and v = middle.

    `middle` is the mean of all models' scores: how hard the prompt is for any of them. `weights`
    are those of 1, u, v, u^2, uv and v^2; `own` and `common` hold the least and the most of u and
    v.
    """

    weights: tuple[float, float, float, float, float, float]
    own: tuple[float, float]
    common: tuple[float, float]

    def apply(self, score: float, middle: float) -> float:
        """Return the share of right answers among prompts of these scores."""
        u, v = score - middle, middle
        low, high = self.own
        u = low if u < low else min(u, high)
        low, high = self.common
        v = low if v < low else min(v, high)
        one, of_u, of_v, of_uu, of_uv, of_vv = self.weights
        logit = one + u * (of_u + of_uu * u + of_uv * v) + v * (of_v + of_vv * v)
        if logit < 0.0:
            odds = math.exp(max(-700.0, logit))
            return odds / (1.0 + odds)
        return 1.0 / (1.0 + math.exp(-logit))
