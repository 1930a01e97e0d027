"""What one process keeps of budgets and usage, and for how long."""

from gateway.service.callers.budget_ledger import (
    BudgetBalance,
    BudgetCharge,
    BudgetSettlement,
)
from gateway.service.callers.budget_store import MemoryStore, UsageEntry

HOUR = 3600.0


async def test_an_hour_that_is_over_is_forgotten_without_anybody_asking_for_usage():
    store = MemoryStore()

    async def spend(hour):
        account, now = f"hour {hour}", hour * HOUR
        charge = BudgetCharge(account, 5, 100, soft=False, ends_at=now + HOUR)
        await store.reserve_amounts(f"request {hour}", [charge], now + 60.0, now)
        settled = BudgetSettlement(f"request {hour}", ((account, 5, 7),), True, now + HOUR)
        await store.settle_request(settled, UsageEntry("usage", {"requests": 1}, 1000 * HOUR))

    await spend(10)
    assert await store.read_balances(["hour 10"], 10 * HOUR) == [BudgetBalance(7, 0)]
    await spend(12)
    found = await store.read_balances(["hour 10", "hour 12"], 12 * HOUR)
    assert found == [BudgetBalance(), BudgetBalance(7, 0)]
    assert await store.read_usage("usage") == {"requests": 2}
