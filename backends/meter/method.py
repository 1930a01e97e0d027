"""How joules were measured: the words that ledger, wire, metrics and regressions share.

PURE: the standard library's typing only.
"""

from typing import Final, Literal

MeteringMethod = Literal["exclusive", "apportioned", "coarse", "estimated"]
"""`estimated` from a meter means that it did not see all of the request."""

ESTIMATED: Final = "estimated"
"""No meter measured it."""

MEASURED_METHODS: Final = ("exclusive", "apportioned")
"""Joules good enough to fit a cost to."""
