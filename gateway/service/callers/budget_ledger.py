"""Budgets: what is reserved, settled and given back. Pure: no clock, no store, whole numbers only.

Rules: a request is admitted while what was settled, what is reserved and its own reservation fit
under every hard limit; what it really cost replaces its reservation, once, in the account of the
period that it came in. So what is settled passes a limit by no more than what the requests in
flight at the time cost beyond their reservations. A reservation that nobody settles until it
expires counts as spent: its gateway may have died after the joules were drawn.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

_HOUR_SECONDS: Final = 3600


class BudgetWindow(StrEnum):
    """How long a budget is for; all begin and end by UTC, months by the calendar."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class BudgetPeriod(NamedTuple):
    """One window's turn: its name, and its end in Unix time."""

    name: str
    ends_at: float


def find_period(window: BudgetWindow, at: float) -> BudgetPeriod:
    """Return the period that a Unix time is in."""
    return _find_hours_period(window, int(at // _HOUR_SECONDS))


@lru_cache(maxsize=64)
def _find_hours_period(window: BudgetWindow, hour: int) -> BudgetPeriod:
    """Return the period that an hour is in: all begin with one, and every request asks for some."""
    now = datetime.fromtimestamp(hour * _HOUR_SECONDS, UTC)
    if window is BudgetWindow.HOUR:
        return BudgetPeriod(now.strftime("%Y-%m-%dT%H"), (now + timedelta(hours=1)).timestamp())
    begun = now.replace(hour=0)
    if window is BudgetWindow.DAY:
        return BudgetPeriod(begun.strftime("%Y-%m-%d"), (begun + timedelta(days=1)).timestamp())
    begun = begun.replace(day=1)
    # Every month is shorter than 32 days and longer than 27.
    following = (begun + timedelta(days=32)).replace(day=1)
    return BudgetPeriod(begun.strftime("%Y-%m"), following.timestamp())


class BudgetCharge(NamedTuple):
    """What a request would take from one account: whole microjoules, tokens or millionths."""

    account: str
    amount: int
    limit: int
    soft: bool
    ends_at: float


class BudgetVerdict(NamedTuple):
    """Which hard charge does not fit, by its place; or which soft ones are passed."""

    refused: int | None
    passed: tuple[int, ...] = ()


class BudgetBalance(NamedTuple):
    """What an account has spent, and what is reserved of it."""

    settled: int = 0
    reserved: int = 0


class BudgetSettlement(NamedTuple):
    """What a request took in the end; `reserved` says whether a reservation was made for it."""

    request: str
    amounts: tuple[tuple[str, int, int], ...]
    """Account, what was reserved of it, and what it took."""
    reserved: bool
    ends_at: float
    """When the last of the accounts may be forgotten."""


class BudgetLedger:
    """The accounts of one store."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def reserve_amounts(
        self, request: str, charges: Sequence[BudgetCharge], expires_at: float, now: float
    ) -> BudgetVerdict:
        """Reserve every charge of a request, or none where a hard one does not fit."""
        passed = []
        for place, charge in enumerate(charges):
            account = self._open_account(charge.account, charge.ends_at)
            account.expire_reservations(now)
            if account.settled + account.reserved + charge.amount > charge.limit:
                if not charge.soft:
                    return BudgetVerdict(place)
                passed.append(place)
        for charge in charges:
            self._accounts[charge.account].hold_amount(request, charge.amount, expires_at)
        return BudgetVerdict(None, tuple(passed))

    def settle_amounts(self, settlement: BudgetSettlement) -> None:
        """Replace a request's reservations by what it took.

        Of a reservation that is no more, which has counted as spent, nothing is counted again.
        """
        for name, _, amount in settlement.amounts:
            account = self._open_account(name, settlement.ends_at)
            if account.release_amount(settlement.request) or not settlement.reserved:
                account.settled += amount

    def read_balances(self, accounts: Iterable[str], now: float) -> list[BudgetBalance]:
        """Return how the accounts stand."""
        found = []
        for name in accounts:
            account = self._accounts.get(name)
            if account is not None:
                account.expire_reservations(now)
            found.append(
                BudgetBalance()
                if account is None
                else BudgetBalance(account.settled, account.reserved)
            )
        return found

    def forget_ended(self, now: float) -> None:
        """Drop the accounts whose period is over and that wait for nothing."""
        for name, account in list(self._accounts.items()):
            account.expire_reservations(now)
            if account.ends_at <= now and not account.reserved:
                del self._accounts[name]

    def _open_account(self, name: str, ends_at: float) -> "_Account":
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account(ends_at)
        return account


class _Account:
    """One budget in one period."""

    __slots__ = ("_held", "ends_at", "reserved", "settled")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.settled = 0
        self.reserved = 0
        self._held: dict[str, tuple[int, float]] = {}

    def hold_amount(self, request: str, amount: int, expires_at: float) -> None:
        self._held[request] = amount, expires_at
        self.reserved += amount

    def release_amount(self, request: str) -> bool:
        held = self._held.pop(request, None)
        if held is None:
            return False
        self.reserved -= held[0]
        return True

    def expire_reservations(self, now: float) -> None:
        # In the order they came, and all last equally long: the first that lasts ends the look.
        while self._held:
            request, (amount, expires_at) = next(iter(self._held.items()))
            if expires_at > now:
                return
            self.release_amount(request)
            self.settled += amount
