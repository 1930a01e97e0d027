"""The one clock of a meter."""

import time


def clock_us() -> int:
    """Return monotonic microseconds."""
    return time.monotonic_ns() // 1000
