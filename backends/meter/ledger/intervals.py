"""Energy by interval, oldest first, until it is divided.

PURE: no clock, no I/O.
"""

from collections import deque
from typing import NamedTuple

MAX_INTERVALS = 10_000


class EnergyInterval(NamedTuple):
    """Energy of (start, end]; a hole is a span in which the counter was not known throughout."""

    start_us: int
    end_us: int
    microjoules: int
    hole: bool


def merge_pairs(spans: deque[EnergyInterval]) -> deque[EnergyInterval]:
    """Half as many spans, two neighbours in one."""
    whole = list(spans)
    if len(whole) % 2:
        last = whole.pop()
        whole[-1] = _join_intervals(whole[-1], last)
    return deque(_join_intervals(*pair) for pair in zip(whole[::2], whole[1::2], strict=True))


def _join_intervals(one: EnergyInterval, two: EnergyInterval) -> EnergyInterval:
    return EnergyInterval(
        one.start_us, two.end_us, one.microjoules + two.microjoules, hole=one.hole or two.hole
    )
