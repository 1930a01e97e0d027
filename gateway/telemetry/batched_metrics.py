"""Counters and histograms that take their amounts in batches: what a request adds is a sum or two.

prometheus_client locks for each amount, a microsecond or two each, and a request has some fifteen.
Rules: `inc` and `observe` note, `publish_batch` enters what was noted since, once for each series;
reading a series does so too. All of it in one thread. In files that workers share others see what
was published.
"""

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterable
from functools import partial

from prometheus_client import Counter, Histogram
from prometheus_client.samples import Sample

_touched: "list[BatchedCounter | BatchedHistogram]" = []


def publish_batch() -> None:
    """Enter what was noted since the last call."""
    for series in _touched:
        series.publish()
    _touched.clear()


class BatchedCounter(Counter):
    """A counter whose increments are entered by `publish_batch`."""

    _noted = 0.0

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002 - there are none
        """Note an amount. Raises ValueError where it is negative."""
        if amount < 0:
            raise ValueError("Counters can only be incremented by non-negative amounts.")
        if not self._noted:
            _touched.append(self)
        self._noted += amount

    def publish(self) -> None:
        """Enter what was noted."""
        noted, self._noted = self._noted, 0.0
        super().inc(noted)

    def _child_samples(self) -> Iterable[Sample]:
        if self._noted:
            self.publish()
        return super()._child_samples()


class BatchedHistogram(Histogram):
    """A histogram whose observations are entered by `publish_batch`."""

    _noted: list[float] | None = None

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002 - there are none
        """Note an amount."""
        if self._noted is None:
            self._noted = []
            _touched.append(self)
        self._noted.append(amount)

    def publish(self) -> None:
        """Enter what was noted, if anything was."""
        noted, self._noted = self._noted or [], None
        self._sum.inc(sum(noted))
        for bucket, count in Counts(map(partial(bisect_left, self._upper_bounds), noted)).items():
            self._buckets[bucket].inc(count)

    def _child_samples(self) -> Iterable[Sample]:
        if self._noted is not None:
            self.publish()
        return super()._child_samples()
