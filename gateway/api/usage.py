"""`GET /v1/usage`: what the caller's API key used in a month, and what its budgets have left."""

import re
import time
from typing import Any, Final

from litestar import Request, get

from gateway.service.callers.budget_ledger import BudgetWindow, find_period
from gateway.service.callers.budget_store import StoreUnavailable
from gateway.service.callers.key_limits import KeyLimits
from gateway.service.callers.spending import KeySpending
from gateway.service.callers.usage import describe_usage, name_usage
from gateway.service.client.errors import BadRequest, KeyStoreUnavailable, NotFound
from gateway.service.pipeline import RequestPipeline
from gateway.utc_time import format_time

_MONTH: Final = re.compile(r"20[0-9]{2}-(?:0[1-9]|1[0-2])")


def make_handler(gateway: RequestPipeline, currency: str | None) -> Any:
    """Make the route handler; `currency` is that of costs."""

    @get("/v1/usage", name="usage")
    async def get_usage(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Return a key's requests, tokens, joules by method, grams and money of a month."""
        keys, spending = gateway.keys, gateway.spending
        if keys is None or spending is None:
            raise NotFound("usage is told by API key, and this gateway has none")
        caller = keys.identify_caller(request.scope["headers"])
        month = request.query_params.get("month") or _name_month()
        if not _MONTH.fullmatch(month):
            raise BadRequest("month: must be as 2026-11", param="month")
        gateway.accounting.flush()
        try:
            await spending.settle_waiting()
            totals = await spending.store.read_usage(name_usage(caller.identity.key_id, month))
            budgets = await _list_budgets(spending, caller.identity.key_id, caller.limits)
        except StoreUnavailable:
            said = "usage cannot be looked up now"
            raise KeyStoreUnavailable(said, retry_after_seconds=1) from None
        return {
            **caller.identity._asdict(),
            "month": month,
            **describe_usage(totals, currency),
            "budgets": budgets,
        }

    return get_usage


def _name_month() -> str:
    return find_period(BudgetWindow.MONTH, time.time()).name


async def _list_budgets(
    spending: KeySpending, key_id: str, limits: KeyLimits | None
) -> list[dict[str, Any]]:
    """Return each budget with what is spent and reserved of it in its period of now."""
    if limits is None or not limits.budgets:
        return []
    now = time.time()
    charges = spending.list_charges(key_id, limits, now)
    balances = await spending.store.read_balances([charge.account for _, charge in charges], now)
    found = []
    for (rule, charge), balance in zip(charges, balances, strict=True):
        found.append(
            {
                "per": rule.window.value,
                "unit": rule.unit,
                "soft": rule.soft,
                "limit": rule.to_units(rule.limit),
                "spent": rule.to_units(balance.settled),
                "reserved": rule.to_units(balance.reserved),
                "renews": format_time(charge.ends_at),
            }
        )
    return found
