"""Requests and tokens a minute, by the `limits` library: here, or in Redis for many gateways.

A request is taken before it waits anywhere. Tokens are taken as they are predicted, once it is
known where it goes, and what an answer had beyond that when it is over.
"""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from backends.retry_after import round_up_seconds
from gateway.service.callers.budget_store import StoreUnavailable
from gateway.service.callers.key_limits import KeyLimits
from gateway.service.client.api_error import Header
from gateway.service.client.errors import RateLimitReached

_MINUTE: Final = 60
REQUESTS: Final = "requests"
TOKENS: Final = "tokens"


class RateLimits:
    """The rates of all keys, in memory or in the Redis that `pool` has connections to."""

    def __init__(self, pool: Any = None) -> None:
        # Of the extra `keys`, and needed only where there are keys.
        from limits import RateLimitItemPerMinute  # noqa: PLC0415
        from limits.aio.strategies import SlidingWindowCounterRateLimiter  # noqa: PLC0415
        from limits.errors import StorageError  # noqa: PLC0415
        from limits.storage import storage_from_string  # noqa: PLC0415

        storage: Any
        if pool is None:
            storage = storage_from_string("async+memory://")
        else:
            # The address is the pool's own.
            storage = storage_from_string(
                "async+redis://localhost:6379",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="joulegate",
                connection_pool=pool,
            )
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._make_item = lru_cache(maxsize=4096)(RateLimitItemPerMinute)
        self._failure = StorageError

    async def take_request(self, key_id: str, limits: KeyLimits, *, waits: bool) -> list[Header]:
        """Take one request; return the headers that tell what is left.

        Where it `waits` before its tokens are taken, one whose key has none left is refused now.
        Raises RateLimitReached, StoreUnavailable.
        """
        headers: list[Header] = []
        if limits.requests_per_minute is not None:
            headers = await self._take(key_id, REQUESTS, limits.requests_per_minute, 1, ())
        if waits and limits.tokens_per_minute is not None:
            await self._check_tokens(key_id, limits.tokens_per_minute, headers)
        return headers

    async def take_predicted(
        self, key_id: str, limits: KeyLimits, tokens: int, before: list[Header]
    ) -> list[Header]:
        """Take the tokens that a request is predicted to take; return `before` and what is left.

        Raises RateLimitReached, StoreUnavailable.
        """
        most = limits.tokens_per_minute
        return before if most is None else await self._take(key_id, TOKENS, most, tokens, before)

    async def take_tokens(self, key_id: str, limits: KeyLimits, tokens: int) -> None:
        """Take tokens that an answer had beyond what was predicted, as many as are left.

        Raises StoreUnavailable.
        """
        most = limits.tokens_per_minute
        if most is None or tokens <= 0:
            return
        item = self._make_item(most)
        try:
            if await self._limiter.hit(item, TOKENS, key_id, cost=tokens):
                return
            # What does not fit is not taken at all.
            left = (await self._limiter.get_window_stats(item, TOKENS, key_id)).remaining
            if left > 0:
                await self._limiter.hit(item, TOKENS, key_id, cost=left)
        except self._failure as error:
            raise StoreUnavailable(_name_cause(error)) from None

    async def _check_tokens(self, key_id: str, most: int, before: list[Header]) -> None:
        item = self._make_item(most)
        try:
            left = await self._limiter.test(item, TOKENS, key_id)
            window = None if left else await self._limiter.get_window_stats(item, TOKENS, key_id)
        except self._failure as error:
            raise StoreUnavailable(_name_cause(error)) from None
        if window is not None:
            raise _make_refusal(TOKENS, most, *_tell_window(TOKENS, most, window), before)

    async def _take(
        self, key_id: str, kind: str, most: int, cost: int, before: Sequence[Header]
    ) -> list[Header]:
        item = self._make_item(most)
        try:
            taken = await self._limiter.hit(item, kind, key_id, cost=cost)
            window = await self._limiter.get_window_stats(item, kind, key_id)
        except self._failure as error:
            raise StoreUnavailable(_name_cause(error)) from None
        told, wait = _tell_window(kind, most, window)
        if taken:
            return [*before, *told]
        asked = f"; this request was predicted to take {cost}" if kind == TOKENS else ""
        if cost > most:
            asked += ", more than a whole minute's; ask for fewer"
        refusal = _make_refusal(kind, most, told, wait, before, asked)
        # An SDK that came back each minute would be refused each time.
        refusal.should_retry = cost <= most
        raise refusal


def _tell_window(kind: str, most: int, window: Any) -> tuple[list[Header], float]:
    """Return the headers that tell what a window has left, and the seconds until it is over."""
    wait = min(max(window.reset_time - time.time(), 0.0), float(_MINUTE))
    told = [
        (f"x-ratelimit-limit-{kind}".encode(), str(most).encode()),
        (f"x-ratelimit-remaining-{kind}".encode(), str(max(0, window.remaining)).encode()),
        (f"x-ratelimit-reset-{kind}".encode(), f"{wait:.3f}s".encode()),
    ]
    return told, wait


def _name_cause(error: Exception) -> str:
    """Return what kind of error the library met; never its text, as for the budgets' store."""
    return type(getattr(error, "storage_error", error)).__name__


def _make_refusal(
    kind: str,
    most: int,
    told: list[Header],
    wait: float,
    before: Sequence[Header],
    asked: str = "",
) -> RateLimitReached:
    refusal = RateLimitReached(
        f"this API key may use {most} {kind} a minute{asked}",
        retry_after_seconds=round_up_seconds(wait),
    )
    refusal.type = kind
    refusal.more_headers = (*before, *told)
    return refusal
