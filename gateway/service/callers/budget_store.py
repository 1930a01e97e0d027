"""Where budgets and usage are kept: here for one process, in Redis or Valkey for many."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.service.callers.budget_ledger import (
    BudgetBalance,
    BudgetCharge,
    BudgetLedger,
    BudgetSettlement,
    BudgetVerdict,
)


class StoreUnavailable(Exception):
    """The store does not answer."""


class UsageEntry(NamedTuple):
    """What a finished request adds to its key's totals of a month; `fields` are whole numbers."""

    account: str
    fields: Mapping[str, int]
    ends_at: float


class BudgetStore(Protocol):
    """What keeps accounts. Every method may raise StoreUnavailable."""

    async def reserve_amounts(
        self, request: str, charges: Sequence[BudgetCharge], expires_at: float, now: float
    ) -> BudgetVerdict:
        """Reserve every charge of a request, or none where a hard one does not fit."""
        ...

    async def settle_request(self, settlement: BudgetSettlement, usage: UsageEntry) -> None:
        """Replace a request's reservations by what it took, and count it, once."""
        ...

    async def read_balances(self, accounts: Sequence[str], now: float) -> list[BudgetBalance]:
        """Return how accounts stand."""
        ...

    async def read_usage(self, account: str) -> dict[str, int]:
        """Return the totals of a key's month."""
        ...

    async def close(self) -> None:
        """Let go of what is held open."""
        ...


class MemoryStore:
    """Keeps them in this process, until it ends."""

    def __init__(self) -> None:
        self._ledger = BudgetLedger()
        self._usage: dict[str, dict[str, int]] = {}
        self._ends: dict[str, float] = {}
        self._swept_at = 0.0

    async def reserve_amounts(
        self, request: str, charges: Sequence[BudgetCharge], expires_at: float, now: float
    ) -> BudgetVerdict:
        """Reserve every charge of a request, or none where a hard one does not fit."""
        if now >= self._swept_at + _SWEEP_SECONDS:
            self._swept_at = now
            self._ledger.forget_ended(now)
        return self._ledger.reserve_amounts(request, charges, expires_at, now)

    async def settle_request(self, settlement: BudgetSettlement, usage: UsageEntry) -> None:
        """Replace a request's reservations by what it took, and count it."""
        self._ledger.settle_amounts(settlement)
        if usage.account not in self._usage:
            self._drop_ended(usage.ends_at)
            self._ends[usage.account] = usage.ends_at
        totals = self._usage.setdefault(usage.account, {})
        for name, amount in usage.fields.items():
            totals[name] = totals.get(name, 0) + amount

    async def read_balances(self, accounts: Sequence[str], now: float) -> list[BudgetBalance]:
        """Return how accounts stand."""
        return self._ledger.read_balances(accounts, now)

    async def read_usage(self, account: str) -> dict[str, int]:
        """Return the totals of a key's month."""
        return dict(self._usage.get(account, {}))

    async def close(self) -> None:
        """Hold nothing open."""

    def _drop_ended(self, ends_at: float) -> None:
        """Keep the month before the one that ends then, and drop those before."""
        for account, ended in list(self._ends.items()):
            if ended < ends_at - _KEPT_SECONDS:
                del self._usage[account], self._ends[account]


_KEPT_SECONDS = 93 * 86_400
_SWEEP_SECONDS = 3600.0
