"""Energy by interval, oldest first, until it is divided.

PURE: no clock, no I/O.
"""

from collections import deque
from typing import NamedTuple

MAX_SPANS = 10_000


class Span(NamedTuple):
    """Energy of (start, end]; a hole is a span in which the counter was not known throughout."""

    start_us: int
    end_us: int
    microjoules: int
    hole: bool


def merged(spans: deque[Span]) -> deque[Span]:
    """Half as many spans, two neighbours in one."""
    whole = list(spans)
    if len(whole) % 2:
        last = whole.pop()
        whole[-1] = _joined(whole[-1], last)
    return deque(_joined(*pair) for pair in zip(whole[::2], whole[1::2], strict=True))


def _joined(one: Span, two: Span) -> Span:
    return Span(
        one.start_us, two.end_us, one.microjoules + two.microjoules, hole=one.hole or two.hole
    )
