"""What becomes of a request: its energy, and how that was had.

PURE: no clock, no I/O.
"""

from typing import Literal, NamedTuple

from backends.meter.ledger.apportion import RequestKey
from backends.meter.ledger.request import RequestTimeline

Method = Literal["exclusive", "apportioned", "coarse", "estimated"]


class Settled(NamedTuple):
    """A request's energy."""

    key: RequestKey
    microjoules: int
    method: Method


def settle_request(request: RequestTimeline, *, coarse: bool) -> Settled:
    """Return a request's energy with its label; `coarse`: its source always is."""
    method: Method = "apportioned"
    if request.incomplete:
        method = "estimated"
    elif request.coarse or coarse:
        method = "coarse"
    elif request.used_alone:
        method = "exclusive"
    return Settled(request.key, request.microjoules, method)
