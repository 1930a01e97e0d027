"""What becomes of a request: its energy, and how that was had.

PURE: no clock, no I/O.
"""

from typing import NamedTuple

from backends.meter.ledger.apportion import RequestKey
from backends.meter.ledger.request import RequestTimeline
from backends.meter.method import ESTIMATED, MeteringMethod


class SettledRequest(NamedTuple):
    """A request's energy."""

    key: RequestKey
    microjoules: int
    method: MeteringMethod


def settle_request(request: RequestTimeline, *, coarse: bool) -> SettledRequest:
    """Return a request's energy with its label; `coarse`: its source always is."""
    method: MeteringMethod = "apportioned"
    if request.incomplete:
        method = ESTIMATED
    elif request.coarse or coarse:
        method = "coarse"
    elif request.used_alone:
        method = "exclusive"
    return SettledRequest(request.key, request.microjoules, method)
