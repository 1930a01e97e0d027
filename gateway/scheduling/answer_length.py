"""The length of an answer as a distribution: log-normal in tokens, cut where a limit cuts it.

Rules: o is the length that the model would write, log o ~ N(mu, sigma^2); what is paid for is
o clamped between `low` (min_tokens) and `high` (the limit). With z = (ln L - mu)/sigma and Phi the
normal distribution function (Johnson, Kotz and Balakrishnan, "Continuous Univariate
Distributions 1", chapter 14):

    E[min(o, L)]   = e^(mu + s^2/2) Phi(z - s) + L (1 - Phi(z))
    E[min(o, L)^2] = e^(2 mu + 2 s^2) Phi(z - 2s) + L^2 (1 - Phi(z))

and E[f(clamp(o))] = E[f(min(o, high))] - E[f(min(o, low))] + f(low) for both.
"""

import math
from functools import lru_cache
from math import erfc, exp, log
from typing import NamedTuple

from gateway.scheduling.tuple_maker import tuple_maker

DEFAULT_SIGMA = 0.8
"""Standard deviation of log length where nothing is known of it (measured: 0.7 to 0.9)."""

_SQRT2 = math.sqrt(2.0)
_MOST_MU = 60.0
_FAR = 700.0  # exp() of more overflows


class Moments(NamedTuple):
    """Mean and mean square of the tokens of one answer."""

    mean: float
    mean_square: float

    @property
    def deviation(self) -> float:
        """Standard deviation in tokens."""
        return math.sqrt(max(0.0, self.mean_square - self.mean * self.mean))


class AnswerLength(NamedTuple):
    """A log-normal length: `mu` and `sigma` are the mean and deviation of ln(tokens)."""

    mu: float
    sigma: float

    @staticmethod
    def of_mean(mean: float, sigma: float = DEFAULT_SIGMA) -> "AnswerLength":
        """Return the one with this mean in tokens (below 1 counts as 1)."""
        return make_length((log(max(1.0, mean)) - sigma * sigma / 2.0, sigma))

    def compute_mean(self, low: float, high: float) -> float:
        """Return E[clamp(o, low, high)]; with low >= high it is high."""
        if high <= low:
            return high
        mu, sigma = self
        mu = min(mu, _MOST_MU)
        # Beyond exp()'s range all of the mass lies above the limits.
        exponent = mu + sigma * sigma / 2.0
        half = 0.5 * exp(exponent) if exponent < _FAR else 0.0
        z = (log(high) - mu) / sigma
        upper = half * erfc((sigma - z) / _SQRT2) + high * (0.5 * erfc(z / _SQRT2))
        z = (log(low) - mu) / sigma
        lower = half * erfc((sigma - z) / _SQRT2) + low * (0.5 * erfc(z / _SQRT2))
        return upper - lower + low

    def compute_moments(self, low: float, high: float) -> Moments:
        """Return the first two moments of clamp(o, low, high)."""
        if high <= low:
            return Moments(high, high * high)
        square = self._square_below(high) - self._square_below(low) + low * low
        return Moments(self.compute_mean(low, high), square)

    def find_quantile(self, share: float, low: float, high: float) -> float:
        """Return the tokens that `share` of the answers stay within (0 < share < 1)."""
        return self.find_at(find_normal_quantile(share), low, high)

    def find_at(self, z: float, low: float, high: float) -> float:
        """Return the tokens at `z` deviations of ln(tokens) above `mu`, clamped."""
        exponent = self.mu + self.sigma * z
        found = math.exp(exponent) if exponent < _FAR else math.inf
        return high if found >= high else max(found, min(low, high))

    def _square_below(self, limit: float) -> float:
        mu, sigma = min(self.mu, _MOST_MU), self.sigma
        z = (math.log(limit) - mu) / sigma
        tail = 0.5 * math.erfc(z / _SQRT2)
        below = 0.5 * math.erfc((2.0 * sigma - z) / _SQRT2)
        exponent = 2.0 * mu + 2.0 * sigma * sigma
        return (math.exp(exponent) * below if exponent < _FAR else 0.0) + limit * limit * tail


make_length = tuple_maker(AnswerLength)
"""Makes one of (mu, sigma): a request has ten."""


@lru_cache(maxsize=1024)
def find_normal_quantile(share: float) -> float:
    """Return z with Phi(z) = `share`, by bisection; 0 < share < 1."""
    low, high = -40.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2.0
        if 0.5 * math.erfc(-middle / _SQRT2) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0
