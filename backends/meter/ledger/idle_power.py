"""What devices draw while nobody uses them, and how much of an interval was nobody's.

PURE: no clock, no I/O.

Rules:
- Known from intervals in which no request was there: the least of the last ones, for what passes
  the gateways by may be hidden in some.
- Of an interval in which requests were there for a part of the time, the rest of the time is idle,
  at that power. Without this a request that is shorter than the counter's period pays for the
  whole of it: 40% too much for one of 16 ms at 75 W and a counter of 100 ms (measured).
- Not where tokens that nobody reported were computed meanwhile: they may have been then.
"""

from collections import deque
from collections.abc import Collection

from backends.meter.ledger.intervals import EnergyInterval
from backends.meter.ledger.request import RequestTimeline
from backends.meter.ledger.unreported import UnattributedTokens

_INTERVALS = 20
_LEAST = 3
"""Idle intervals that must have been seen."""


class IdlePower:
    """The power of one set of devices, in microjoules a microsecond."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=_INTERVALS)

    def learn(self, span: EnergyInterval) -> None:
        """Take in an interval in which nobody was there."""
        if not span.hole:
            self._seen.append(span.microjoules / (span.end_us - span.start_us))

    def find_idle_energy(
        self,
        span: EnergyInterval,
        requests: Collection[RequestTimeline],
        unreported: Collection[UnattributedTokens],
    ) -> int:
        """Return the microjoules of an interval that were spent while no request was there."""
        if len(self._seen) < _LEAST or span.hole:
            return 0
        absent_us = measure_absence(span, requests)
        if not absent_us:
            return 0
        if any(one.count_tokens_between(span.start_us, span.end_us, []) for one in unreported):
            return 0
        return min(span.microjoules, int(min(self._seen) * absent_us))


def measure_absence(span: EnergyInterval, requests: Collection[RequestTimeline]) -> int:
    """Return the microseconds of an interval in which none of these was there."""
    start_us, end_us = span.start_us, span.end_us
    if any(one.begin_us <= start_us and end_us <= one.end_us for one in requests):
        return 0
    absent_us, at_us = 0, start_us
    for begin_us, ended_us in sorted((one.begin_us, one.end_us) for one in requests):
        absent_us += max(0, min(begin_us, end_us) - at_us)
        at_us = max(at_us, ended_us)
    return absent_us + max(0, end_us - at_us)
