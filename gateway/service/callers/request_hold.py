"""What is held of a key's budgets for one request, until its joules are final."""

from dataclasses import dataclass, field

from gateway.service.callers.budget_ledger import BudgetCharge
from gateway.service.callers.key_limits import BudgetRule, KeyLimits
from gateway.service.client import headers as names
from gateway.service.client.api_error import Header
from gateway.utc_time import format_time


@dataclass(slots=True)
class RequestHold:
    """One request of a key with limits.

    `tokens` are those taken from its rate; `charges` its budgets, which the store holds where
    `reserved`; `passed` the soft one that has nothing left, if any; `headers` tell of its rates;
    `unchecked` says that the store did not answer.
    """

    name: str
    key_id: str
    limits: KeyLimits
    tokens: int = 0
    charges: tuple[tuple[BudgetRule, BudgetCharge], ...] = ()
    reserved: bool = False
    passed: str | None = None
    headers: list[Header] = field(default_factory=list)
    unchecked: bool = False

    def build_headers(self) -> list[Header]:
        """Return what the answer's head says of rates and budgets."""
        if self.passed is None:
            return self.headers
        return [*self.headers, (names.BUDGET.encode(), self.passed.encode())]


def describe_budget(rule: BudgetRule, charge: BudgetCharge) -> str:
    """Return what a header says of a budget that has nothing left."""
    return f"{rule.kind}; {rule.unit}; {rule.window}; renews={format_time(charge.ends_at)}"
