"""The dual of an energy budget: a price on joules that rises while more is spent than it allows.

Rules: the price is added to the weight of energy before the weights are scaled to sum 1, so that a
price of 0 changes nothing. It moves by the relative excess of the spending rate (averaged over
`AVERAGE_SECONDS`) over the budget's, and is never negative. Times are seconds of any one clock.
"""

import math

from gateway.scheduling.decision import MetricWeights

AVERAGE_SECONDS = 300.0
_GAIN_PER_SECOND = 1.0 / 600.0
_MOST_PRICE = 20.0
_MOST_EXCESS = 3.0
_SECONDS_PER_HOUR = 3600.0


class EnergyPrice:
    """One process's; `joules_per_hour` is what it may spend. Raises ValueError unless positive."""

    def __init__(self, joules_per_hour: float) -> None:
        if not (math.isfinite(joules_per_hour) and joules_per_hour > 0.0):
            raise ValueError("an energy budget must be above 0")
        self.value = 0.0
        """What is added to the weight of energy."""
        self._budget = joules_per_hour / _SECONDS_PER_HOUR
        self._spent = 0.0
        self._rate: float | None = None
        self._seen_at: float | None = None

    @property
    def joules_per_hour(self) -> float:
        """What is being spent, averaged; 0 where nothing is known yet."""
        return (self._rate or 0.0) * _SECONDS_PER_HOUR

    def spend(self, joules: float) -> None:
        """Note the joules of a request."""
        self._spent += joules

    def update(self, at_seconds: float) -> None:
        """Move the price by what was spent since the last time."""
        last, self._seen_at = self._seen_at, at_seconds
        if last is None or at_seconds <= last:
            return
        elapsed = at_seconds - last
        rate, self._spent = self._spent / elapsed, 0.0
        part = 1.0 - math.exp(-elapsed / AVERAGE_SECONDS)
        self._rate = rate if self._rate is None else self._rate + part * (rate - self._rate)
        excess = min(_MOST_EXCESS, self._rate / self._budget - 1.0)
        moved = self.value + _GAIN_PER_SECOND * min(elapsed, AVERAGE_SECONDS) * excess
        self.value = min(_MOST_PRICE, max(0.0, moved))

    def apply(self, weights: MetricWeights) -> MetricWeights:
        """Return the weights at this price."""
        if self.value == 0.0:
            return weights
        return MetricWeights.from_values(
            weights.accuracy, weights.energy + self.value, weights.time
        )
