"""Headers that pass through the gateway because the config names them; none of the others does."""

import re
from collections.abc import Iterable
from typing import Final

from gateway.service.client.api_error import Header

_NO_CONTROLS: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def fold_names(names: Iterable[str]) -> frozenset[bytes] | None:
    """Return names as `select_headers` takes them; None where there are none: nobody need look."""
    return frozenset(name.lower().encode() for name in names) or None


def select_headers(headers: Iterable[Header], wanted: frozenset[bytes]) -> list[Header]:
    """Return those that are wanted; names in lower case, a value with control characters left out.

    A line end in a value would begin another header, or another request.
    """
    return [
        (name, value) for name, value in headers if name in wanted and _NO_CONTROLS.fullmatch(value)
    ]


def join_headers(headers: Iterable[Header]) -> dict[str, str]:
    """Return one value for each name: several are one list, RFC 9110 section 5.3."""
    joined: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
