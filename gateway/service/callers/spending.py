"""What keys spend: admitted within rates and budgets, settled to what was metered, told as usage.

Rules: a request beyond its key's rate is refused before it takes a place in a queue; one that has
its turn is reserved at what it is predicted to cost at p90, and settled once its joules are
final. Without limits a key costs the request nothing: its usage is counted when it is over. Where
the store does not answer, `fail_open` says whether requests go on; each is counted.
"""

import asyncio
import itertools
import logging
import secrets
import time
from collections import deque
from typing import Final

from msgspec.structs import replace

from backends.retry_after import round_up_seconds
from gateway.scheduling.decision import RoutingDecision
from gateway.service.callers.budget_ledger import (
    BudgetCharge,
    BudgetSettlement,
    BudgetWindow,
    find_period,
)
from gateway.service.callers.budget_store import BudgetStore, StoreUnavailable, UsageEntry
from gateway.service.callers.key_limits import MILLIONTHS, MOST_AMOUNT, BudgetRule, KeyLimits
from gateway.service.callers.rate_limits import RateLimits
from gateway.service.callers.request_hold import RequestHold, describe_budget
from gateway.service.callers.usage import count_amount, count_usage, name_usage
from gateway.service.client import headers as names
from gateway.service.client.errors import BudgetExceeded, KeyStoreUnavailable
from gateway.service.request.caller import Caller
from gateway.service.request.plan import RoutingPlan
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.record import RequestRecord
from gateway.utc_time import format_time

_log = logging.getLogger("joulegate")

_AWAY_SECONDS: Final = 1.0
"""How long a store that failed is not asked again."""
_MOST_WAITING: Final = 100_000
_CLOSE_SECONDS: Final = 2.0


class KeySpending:
    """The spending of one process's callers."""

    def __init__(
        self,
        store: BudgetStore,
        rates: RateLimits,
        metrics: GatewayMetrics,
        *,
        fail_open: bool,
        hold_seconds: float,
        price_per_joule: float,
    ) -> None:
        """`hold_seconds` is the longest that a request can last until its joules are final."""
        self.store = store
        self._rates = rates
        self._metrics = metrics
        self._fail_open = fail_open
        self._hold_seconds = hold_seconds
        self._price_per_joule = price_per_joule
        self._waiting: deque[tuple[BudgetSettlement, UsageEntry, RequestHold | None]] = deque()
        self._news = asyncio.Event()
        self._settling = asyncio.Lock()
        self._away_until = 0.0
        # Clients choose their requests' ids, so that two may have one.
        self._names = map((secrets.token_hex(6) + "-{:x}").format, itertools.count())

    async def begin_request(self, caller: Caller | None, *, waits: bool) -> RequestHold | None:
        """Take a request from its key's rates, before it waits for a place (where it `waits`).

        None where its key has no limits. Raises RateLimitReached, KeyStoreUnavailable.
        """
        if caller is None or caller.limits is None:
            return None
        limits: KeyLimits = caller.limits
        hold = RequestHold(next(self._names), caller.identity.key_id, limits)
        try:
            self._check_store()
            hold.headers = await self._rates.take_request(hold.key_id, limits, waits=waits)
        except StoreUnavailable as error:
            self._go_unchecked(hold, error)
        return hold

    async def admit_plan(self, hold: RequestHold, made: RoutingPlan, record: RequestRecord) -> None:
        """Take what a plan is predicted to cost; past a soft budget turn it to the cheapest model.

        Raises RateLimitReached, BudgetExceeded, KeyStoreUnavailable.
        """
        scored = made.decision.candidates[0]
        hold.tokens = scored.tokens_in + scored.tokens_out
        # At once: should its client leave meanwhile, what was reserved is given back.
        record.hold = hold
        try:
            self._check_store()
            hold.headers = await self._rates.take_predicted(
                hold.key_id, hold.limits, hold.tokens, hold.headers
            )
            if hold.limits.budgets:
                await self._reserve_amounts(hold, made)
        except StoreUnavailable as error:
            # Whether it was reserved is not known; settled it is in any case.
            hold.reserved = False
            self._go_unchecked(hold, error)
        if hold.passed is not None and made.target.model is None:
            made.decision = _put_cheapest_first(made.decision)
            if record.planned is not None:
                record.planned = replace(record.planned, decision=made.decision)

    def settle_request(self, record: RequestRecord) -> None:
        """Note what a request of a key took, now that its joules are final."""
        caller, hold = record.received.caller, record.hold
        if caller is None or (not record.model and hold is None):
            return
        usage = count_usage(record)
        amounts: tuple[tuple[str, int, int], ...] = ()
        if hold is not None:
            amounts = tuple(
                (charge.account, charge.amount, count_amount(usage, rule.unit))
                for rule, charge in hold.charges
            )
        month = find_period(BudgetWindow.MONTH, record.received.at)
        name = next(self._names) if hold is None else hold.name
        reserved = hold is not None and hold.reserved
        settlement = BudgetSettlement(name, amounts, reserved, month.ends_at)
        entry = UsageEntry(name_usage(caller.key_id, month.name), usage, month.ends_at)
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
            self._metrics.key_store_errors.labels("lost").inc()
        self._waiting.append((settlement, entry, hold))
        self._news.set()

    async def run(self) -> None:
        """Tell the store what was settled, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                if not await self._settle_first():
                    await asyncio.sleep(_AWAY_SECONDS)

    async def settle_waiting(self) -> None:
        """Tell the store all that waits now. Raises StoreUnavailable."""
        while self._waiting:
            if not await self._settle_first():
                raise StoreUnavailable("failed a moment ago")

    async def close(self) -> None:
        """Tell the store what is left, for as long as that takes little."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                while self._waiting and await self._settle_first():
                    pass
        except TimeoutError:
            pass
        if self._waiting:
            _log.error("%d requests were not told to the store of budgets", len(self._waiting))
        await self.store.close()

    def list_charges(
        self, key_id: str, limits: KeyLimits, at: float, joules: float = 0.0, tokens: int = 0
    ) -> tuple[tuple[BudgetRule, BudgetCharge], ...]:
        """Return what so many joules and tokens at a Unix time are in each budget of a key."""
        microjoules = joules * MILLIONTHS
        amounts = {
            "joules": round(min(microjoules, MOST_AMOUNT)),
            "tokens": min(tokens, MOST_AMOUNT),
            "money": round(min(microjoules * self._price_per_joule, MOST_AMOUNT)),
        }
        found = []
        for rule in limits.budgets:
            period = find_period(rule.window, at)
            account = f"budget:{key_id}:{rule.unit}:{period.name}:{rule.kind}"
            amount = amounts[rule.unit]
            found.append(
                (rule, BudgetCharge(account, amount, rule.limit, rule.soft, period.ends_at))
            )
        return tuple(found)

    async def _reserve_amounts(self, hold: RequestHold, made: RoutingPlan) -> None:
        now = time.time()
        scored = made.decision.candidates[0]
        option = made.snapshot.by_name[scored.model, scored.deployment].option
        most = max(scored.tokens_out_p90, scored.tokens_out)
        joules = made.features.sequence_counts.predict_joules(
            option.joules, scored.tokens_in, most, scored.running
        )
        tokens = scored.tokens_in + most
        hold.charges = self.list_charges(hold.key_id, hold.limits, now, joules, tokens)
        hold.reserved = True
        verdict = await self.store.reserve_amounts(
            hold.name, [charge for _, charge in hold.charges], now + self._hold_seconds, now
        )
        if verdict.refused is not None:
            rule, charge = hold.charges[verdict.refused]
            hold.charges = ()
            raise _make_refusal(rule, charge, now)
        if verdict.passed:
            hold.passed = describe_budget(*hold.charges[verdict.passed[0]])

    def _go_unchecked(self, hold: RequestHold, error: StoreUnavailable) -> None:
        """Let a request go on where that is configured. Raises KeyStoreUnavailable."""
        if not hold.unchecked:
            consequence = "admitted" if self._fail_open else "refused"
            self._metrics.key_store_errors.labels(consequence).inc()
        hold.unchecked = True
        self._note_away(error)
        if not self._fail_open:
            raise KeyStoreUnavailable(
                "what this API key has left cannot be looked up now", retry_after_seconds=1
            ) from None

    def _check_store(self) -> None:
        if time.monotonic() < self._away_until:
            raise StoreUnavailable("failed a moment ago")

    async def _settle_first(self) -> bool:
        """Tell the store what has waited longest; tell whether it was told."""
        async with self._settling:
            return not self._waiting or await self._settle(*self._waiting[0])

    async def _settle(
        self, settlement: BudgetSettlement, usage: UsageEntry, hold: RequestHold | None
    ) -> bool:
        try:
            await self.store.settle_request(settlement, usage)
            if hold is not None:
                more = count_amount(usage.fields, "tokens") - hold.tokens
                await self._rates.take_tokens(hold.key_id, hold.limits, more)
        except StoreUnavailable as error:
            self._metrics.key_store_errors.labels("delayed").inc()
            self._note_away(error)
            return False
        self._waiting.popleft()
        return True

    def _note_away(self, error: StoreUnavailable) -> None:
        if time.monotonic() >= self._away_until:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            _log.error("the store of budgets does not answer: %s", error)


def _put_cheapest_first(decision: RoutingDecision) -> RoutingDecision:
    ranked = sorted(decision.candidates, key=lambda scored: scored.predicted_joules)
    # Nobody was drawn: propensities would tell `replay` that others might have been.
    return decision._replace(candidates=tuple(ranked), exploration=None)


def _make_refusal(rule: BudgetRule, charge: BudgetCharge, now: float) -> BudgetExceeded:
    needed, limit = rule.to_units(charge.amount), rule.to_units(rule.limit)
    if charge.amount > charge.limit:
        why = f"more than the whole budget of {limit:.6g}; ask for fewer tokens or a cheaper model"
    else:
        why = (
            f"too much for what is left of {limit:.6g}; it renews at {format_time(charge.ends_at)}"
        )
    error = BudgetExceeded(
        f"this request may take {needed:.6g} {rule.unit} of this API key's budget for the "
        f"{rule.window}: {why}",
        retry_after_seconds=round_up_seconds(charge.ends_at - now),
    )
    error.more_headers = ((names.BUDGET.encode(), describe_budget(rule, charge).encode()),)
    return error
