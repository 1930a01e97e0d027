"""A line y = a + b x fitted by relative loss, from sums alone.

The loss is sum(((a + b x - y) / y)^2): ten percent off weighs the same at a batch of 8, where a
token is dear, as at 1,024, where it is cheap. Both coefficients are costs, so neither is negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Pair = tuple[float, float]
"""(x, y) of one measured point; y is above zero."""


@dataclass(frozen=True, slots=True)
class RelativeSums:
    """Sums over points, each divided by y^2: all that the fit needs.

    `weight` is sum(1/y^2), `x` sum(x/y^2), `xx` sum(x^2/y^2), `y` sum(1/y), `xy` sum(x/y).
    """

    points: int
    weight: float
    x: float
    xx: float
    y: float
    xy: float

    def relative_loss(self, a: float, b: float) -> float:
        """Return the sum of squared relative errors of y = a + b x."""
        squares = a * a * self.weight + 2.0 * a * b * self.x + b * b * self.xx
        return squares - 2.0 * (a * self.y + b * self.xy) + self.points


def sum_points(pairs: Sequence[Pair]) -> RelativeSums:
    """Sum points up. Raises ValueError for a y that is not above zero."""
    if not all(y > 0.0 for _, y in pairs):
        raise ValueError("a measured cost is above zero")
    weights = [1.0 / (y * y) for _, y in pairs]
    return RelativeSums(
        points=len(pairs),
        weight=sum(weights),
        x=sum(w * x for w, (x, _) in zip(weights, pairs, strict=True)),
        xx=sum(w * x * x for w, (x, _) in zip(weights, pairs, strict=True)),
        y=sum(1.0 / y for _, y in pairs),
        xy=sum(x / y for x, y in pairs),
    )


def solve_line(sums: RelativeSums) -> tuple[float, float]:
    """Return (a, b), neither negative, of least relative loss.

    Raises ValueError where the points cannot tell a line.
    """
    spread = sums.weight * sums.xx - sums.x * sums.x
    if sums.points < 2 or spread <= 1e-12 * sums.weight * sums.xx:  # noqa: PLR2004 - a line's two
        raise ValueError("a line takes points at two loads at least")
    b = (sums.weight * sums.xy - sums.x * sums.y) / spread
    a = (sums.y - b * sums.x) / sums.weight
    if a < 0.0:
        return 0.0, sums.xy / sums.xx
    if b < 0.0:
        return sums.y / sums.weight, 0.0
    return a, b


def fit_pairs(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return (a, b) of y = a + b x, neither negative. Raises ValueError as `solve_line` does."""
    return solve_line(sum_points(pairs))


def leave_one_out(pairs: Sequence[Pair]) -> list[float]:
    """Return each point's relative error |prediction - y| / y by a fit to all the others."""
    errors = []
    for at, (x, y) in enumerate(pairs):
        a, b = fit_pairs([*pairs[:at], *pairs[at + 1 :]])
        errors.append(abs(a + b * x - y) / y)
    return errors
