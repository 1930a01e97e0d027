"""What share of a step's fixed part falls to each of those at a backend, while they come and go.

PURE: no clock, no I/O. Times are integer microseconds of the meter's clock.

Rules:
- A step's fixed part is shared equally by those who are in it, from the beginning of a prompt's
  prefill to the end of its answer. So each token's share is the mean of 1/n over its request's own
  time in the interval, n all that were there at each moment.
- It is not one over the mean of n, for all alike: who was there only while there was company would
  pay for a part of others' time alone. Of 3,000 streams an hour that was 1 J too much for each, and
  7 mJ a token too little, which long answers gained.
"""

from bisect import bisect_right
from collections.abc import Sequence

from backends.meter.ledger.intervals import EnergyInterval
from backends.meter.ledger.request import RequestTimeline


def is_throughout(span: EnergyInterval, request: RequestTimeline) -> bool:
    """Whether a request is there, its prefill begun and its answer not ended, all the while."""
    turn_us = request.find_turn_us(request.prefilled_us)
    return turn_us <= span.start_us and span.end_us <= request.end_us


class SharedSteps:
    """The steps of one backend within one interval."""

    def __init__(self, span: EnergyInterval, requests: Sequence[RequestTimeline]) -> None:
        start_us, end_us, _, _ = span
        self._passing: dict[int, tuple[int, int]] = {}  # who came or went, by identity
        changes: dict[int, int] = {}
        for request in requests:
            if is_throughout(span, request):
                continue
            turn_us = request.find_turn_us(request.prefilled_us)
            from_us = max(start_us, min(turn_us, end_us))
            to_us = max(from_us, min(end_us, request.end_us))
            self._passing[id(request)] = from_us, to_us
            changes[from_us] = changes.get(from_us, 0) + 1
            changes[to_us] = changes.get(to_us, 0) - 1
        changes.pop(end_us, None)
        present = len(requests) - len(self._passing)
        self._times, self._areas, self._shares = [start_us], [0.0], [1.0 / max(present, 1)]
        for at_us in sorted(changes):
            self._areas.append(self._measure_area(at_us))
            self._times.append(at_us)
            present += changes[at_us]
            self._shares.append(1.0 / max(present, 1))
        self._present = present  # at the end
        self._throughout = self._measure_area(end_us) / (end_us - start_us)

    def find_share(self, request: RequestTimeline) -> float:
        """Return a request's mean share of a step; beside the others if its time is to come."""
        passing = self._passing.get(id(request))
        if passing is None:
            return self._throughout
        from_us, to_us = passing
        if from_us == to_us:
            return 1.0 / (self._present + 1)
        return (self._measure_area(to_us) - self._measure_area(from_us)) / (to_us - from_us)

    def _measure_area(self, at_us: int) -> float:
        """Return the sum of shares up to then, microseconds each."""
        place = bisect_right(self._times, at_us) - 1
        return self._areas[place] + self._shares[place] * (at_us - self._times[place])
