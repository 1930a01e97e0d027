"""What a backend's /metrics page says, in Prometheus's text format.

Only the series asked for are looked at: a vLLM page is long and is read every second.
"""

import re
from functools import lru_cache
from math import isfinite


@lru_cache(maxsize=64)
def _compile_series_pattern(name: str) -> re.Pattern[bytes]:
    """Match a line of the series: its labels, then its value; a timestamp may follow."""
    return re.compile(
        rb"^"
        + re.escape(name.encode())
        + rb"(?:\{([^\n]*)\})?[ \t]+([^\s}]+)(?:[ \t]+-?\d+)?[ \t]*\r?$",
        re.MULTILINE,
    )


def sum_series(page: bytes, name: str, /, **labels: str) -> float | None:
    """Return the sum of a metric's series that have these labels; None where there is none.

    Label values are compared as they are written. A value that is no finite number is left out.
    """
    wanted = [re.compile(rf'(?:^|,)\s*{k}="{re.escape(v)}"'.encode()) for k, v in labels.items()]
    found = None
    for match in _compile_series_pattern(name).finditer(page):
        if all(label.search(match[1] or b"") for label in wanted):
            try:
                value = float(match[2])
            except ValueError:
                continue
            if isfinite(value):
                found = value + (found or 0.0)
    return found
