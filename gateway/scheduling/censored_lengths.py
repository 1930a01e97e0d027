"""What was seen of one source of answer lengths, and its log-normal by EM, cut answers included.

Rules: values are ln(tokens) less what was expected without any learning. An answer that its limit
cut is known only to be longer: it enters as *at least that long*, kept by its limit's value in
bins of a tenth. Everything is forgotten with a half-life, and weighs no more than `most` answers.
EM for a censored normal: Dempster, Laird and Rubin, 1977, with a conjugate prior in place of the
flat one.
"""

import math
from typing import NamedTuple

HALF_LIFE_SECONDS = 3 * 86_400.0
_BIN = 0.1
_MOST_BINS = 40
_ITERATIONS = 12
_CLOSE = 1e-4
_SQRT2 = math.sqrt(2.0)
_ROOT_2PI = math.sqrt(2.0 * math.pi)
_FAR = 8.0


class LengthPrior(NamedTuple):
    """What is believed before: a mean worth `mean_n` answers, a deviation worth `sigma_n`."""

    mean: float
    sigma: float
    mean_n: float
    sigma_n: float


class CensoredLengths:
    """Decayed sums of one source, and the estimate they give: `mean` and `sigma`."""

    __slots__ = ("at", "bins", "fresh", "mean", "most", "n", "sigma", "squares", "total", "whole")

    def __init__(self, most: float) -> None:
        self.most = most
        self.n = 0.0
        """Answers in all, decayed."""
        self.whole = 0.0
        """Of these, whole ones."""
        self.total = self.squares = 0.0
        self.bins: dict[int, list[float]] = {}
        """Cut answers: bin -> [count, sum of the limits' values]."""
        self.at = 0.0
        self.fresh = 0
        self.mean = 0.0
        self.sigma = 1.0

    def add(self, value: float, *, cut: bool, at_seconds: float) -> None:
        """Take an answer; where `cut` its value is the limit's."""
        self._decay(at_seconds)
        if cut:
            key = round(value / _BIN)
            if key not in self.bins and len(self.bins) >= _MOST_BINS:
                key = min(self.bins, key=lambda known: abs(known - key))
            entry = self.bins.setdefault(key, [0.0, 0.0])
            entry[0] += 1.0
            entry[1] += value
        else:
            self.whole += 1.0
            self.total += value
            self.squares += value * value
        self.n += 1.0
        self.fresh += 1

    @property
    def is_due(self) -> bool:
        """Whether enough is new for an estimate: each of the first 20, then every 20th part."""
        return self.fresh * 20.0 >= self.n or (self.fresh > 0 and self.n < 20.0)  # noqa: PLR2004

    def estimate(self, prior: LengthPrior) -> float:
        """Set `mean` and `sigma` to the posterior mode; return the squares about the mean."""
        self.fresh = 0
        mean, sigma, squares = prior.mean, prior.sigma, 0.0
        if self.n >= 1.0 and self.sigma > 0.0 and self.mean:
            mean, sigma = self.mean, self.sigma
        cuts = [(count, total / count) for count, total in self.bins.values() if count > 0.0]
        for _ in range(_ITERATIONS):
            total, second = self.total, self.squares
            for count, limit in cuts:
                z = (limit - mean) / sigma
                above = mean + sigma * _mills(z)
                total += count * above
                second += count * (mean * mean + sigma * sigma + sigma * _mills(z) * (limit + mean))
            was = mean, sigma
            mean = (prior.mean_n * prior.mean + total) / (prior.mean_n + self.n)
            squares = max(0.0, second - 2.0 * mean * total + self.n * mean * mean)
            degrees = prior.sigma_n + max(0.0, self.n - 1.0)
            sigma = math.sqrt((prior.sigma_n * prior.sigma**2 + squares) / degrees)
            if abs(mean - was[0]) + abs(sigma - was[1]) < _CLOSE or not cuts:
                break
        self.mean, self.sigma = mean, sigma
        return squares

    def shift(self, by: float) -> None:
        """Move every value: what they are measured from has moved the other way."""
        self.squares += 2.0 * by * self.total + self.whole * by * by
        self.total += self.whole * by
        self.mean += by
        moved = [(count, total + count * by) for count, total in self.bins.values() if count > 0.0]
        self.bins = {}
        for count, total in moved:
            entry = self.bins.setdefault(round(total / count / _BIN), [0.0, 0.0])
            entry[0] += count
            entry[1] += total

    def to_list(self) -> list[object]:
        """Return it as plain values."""
        bins = [[key, *entry] for key, entry in self.bins.items()]
        return [
            self.n, self.whole, self.total, self.squares, self.at, self.mean, self.sigma, bins
        ]  # fmt: skip

    @classmethod
    def from_list(cls, values: list[object], most: float) -> "CensoredLengths":
        """Return what `to_list` gave. Raises ValueError, TypeError or KeyError on anything else."""
        made = cls(most)
        *numbers, bins = values
        figures = [float(number) for number in numbers]  # type: ignore[arg-type]
        if not all(map(math.isfinite, figures)) or not isinstance(bins, list):
            raise ValueError("not a finite number")
        made.n, made.whole, made.total, made.squares, made.at, made.mean, made.sigma = figures
        made.bins = {int(key): [float(count), float(total)] for key, count, total in bins}
        if made.sigma <= 0.0 or made.n < 0.0:
            raise ValueError("not a length")
        return made

    def _decay(self, at_seconds: float) -> None:
        self.at = self.at or at_seconds
        elapsed = max(0.0, at_seconds - self.at)
        keep = 0.5 ** (elapsed / HALF_LIFE_SECONDS)
        if self.n * keep > self.most:
            keep = self.most / self.n
        if keep > 0.999_999:  # noqa: PLR2004 - not worth the multiplications yet
            return
        self.at = max(self.at, at_seconds)
        self.n *= keep
        self.whole *= keep
        self.total *= keep
        self.squares *= keep
        for entry in self.bins.values():
            entry[0] *= keep
            entry[1] *= keep


def _mills(z: float) -> float:
    """Return phi(z) / (1 - Phi(z)): the mean of a standard normal above z."""
    if z > _FAR:
        return z + 1.0 / z
    return math.exp(-z * z / 2.0) / _ROOT_2PI / (0.5 * math.erfc(z / _SQRT2))
