"""Single members as vLLM's pydantic reads them: `"true"`, `1`, `"50"` and `50.0` are taken too.

Rules: nothing here refuses anything. What cannot be read says nothing (None): it is passed on, and
vLLM is the one to refuse it.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw

from backends.sse import UNREADABLE

MOST_TOKENS: Final = 1 << 53
"""No count is taken to be larger, and every integer up to it is a float."""

_MOST_DIGITS: Final = 15
_MOST_TEXT: Final = 64
_FLAGS: Final = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


def read_value(raw: Raw | None) -> Any:
    """Return a member's value; None where it is absent, null or cannot be read."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except UNREADABLE:
        return None


def read_flag(raw: Raw | None) -> bool | None:
    """Return a member as a boolean; None where it is none."""
    if raw is None:
        return None
    text = bytes(raw)
    if text in {b"true", b"false"}:
        return text == b"true"
    return to_flag(read_value(raw))


def to_flag(value: object) -> bool | None:
    """Return a decoded value as a boolean; None where it is none."""
    if isinstance(value, int | float):
        return bool(value) if value in {0, 1} else None
    return _FLAGS.get(value.lower()) if isinstance(value, str) else None


def read_count(raw: Raw | None) -> int | None:
    """Return a member as a whole number from -1 to `MOST_TOKENS`; None where it is none.

    Every negative number is -1: vLLM has one meaning for them, where it has any.
    """
    if raw is None:
        return None
    text = bytes(raw)
    if len(text) <= _MOST_DIGITS and text.isdigit():
        return int(text)
    value = read_value(raw)
    if isinstance(value, str) and len(value) <= _MOST_TEXT:
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN, as text
        return None
    value = max(-1, min(value, MOST_TOKENS))
    return int(value) if value == value // 1 else None
