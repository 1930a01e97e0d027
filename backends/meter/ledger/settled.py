"""What becomes of a request: its energy, and how that was had.

PURE: no clock, no I/O.
"""

from typing import Literal, NamedTuple

from backends.meter.ledger.apportion import Key
from backends.meter.ledger.request import Tracked

Method = Literal["exclusive", "apportioned", "coarse", "estimated"]


class Settled(NamedTuple):
    """A request's energy."""

    key: Key
    microjoules: int
    method: Method


def settle_request(request: Tracked, *, coarse: bool) -> Settled:
    """Return a request's energy with its label; `coarse`: its source always is."""
    method: Method = "apportioned"
    if request.incomplete:
        method = "estimated"
    elif request.coarse or coarse:
        method = "coarse"
    elif request.alone:
        method = "exclusive"
    return Settled(request.key, request.microjoules, method)
