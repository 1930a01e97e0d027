"""`Retry-After`, as servers write it: seconds, fractions of one, or a date."""

import math
import time
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_SECONDS: Final = 60.0
"""The longest Retry-After of a backend that is believed."""


def parse_retry_after(value: str | None, date: str | None = None) -> float | None:
    """Return the seconds that a `Retry-After` asks to wait, 0 to 60; None where it says nothing.

    A date counts from the answer's own `Date`, where there is one: the two clocks need not agree.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = _parse_date(value)
        if until is None:
            return None
        now = _parse_date(date) if date else None
        seconds = until - (time.time() if now is None else now)
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_SECONDS)


def round_up_seconds(seconds: float) -> int:
    """Return the whole seconds that a client is told to wait: at least 1."""
    return max(1, math.ceil(seconds))


def _parse_date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
