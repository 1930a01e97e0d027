"""What one key may spend: requests and tokens a minute, and budgets; prepared from its entry."""

from typing import Final, NamedTuple

from gateway.keys_file import BudgetEntry, KeyEntry
from gateway.service.callers.budget_ledger import BudgetWindow

MILLIONTHS: Final = 1_000_000
MOST_AMOUNT: Final = 10**15
"""No request is predicted to cost more microjoules (278 kWh), tokens or millionths of money.

What a client asks for may be any number, and Redis adds those of 64 bits.
"""


class BudgetRule(NamedTuple):
    """One budget: `limit` in whole microjoules, tokens or millionths of the currency."""

    window: BudgetWindow
    unit: str
    limit: int
    soft: bool

    @property
    def kind(self) -> str:
        """What tells a soft budget's account from a hard one's of the same window and unit."""
        return "soft" if self.soft else "hard"

    def to_units(self, amount: int) -> float:
        """Return an account's whole number in joules, tokens or money."""
        return amount / (1 if self.unit == "tokens" else MILLIONTHS)


class KeyLimits(NamedTuple):
    """All limits of a key."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    budgets: tuple[BudgetRule, ...]


def make_key_limits(entry: KeyEntry) -> KeyLimits | None:
    """Return the limits of an entry; None where it has none."""
    if not entry.has_limits:
        return None
    return KeyLimits(
        entry.requests_per_minute,
        entry.tokens_per_minute,
        tuple(_make_rule(budget) for budget in entry.budgets),
    )


def _make_rule(budget: BudgetEntry) -> BudgetRule:
    unit, limit = budget.find_limit()
    scaled = int(limit) if unit == "tokens" else round(limit * MILLIONTHS)
    return BudgetRule(BudgetWindow(budget.per), unit, scaled, budget.soft)
