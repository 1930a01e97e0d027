"""Requests and tokens a minute, by the `limits` library: here, or in Redis for many gateways.

Tokens are taken as they are predicted, and what an answer had beyond that when it is over.
"""

import time
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

    async def take_request(self, key_id: str, limits: KeyLimits, tokens: int) -> list[Header]:
        """Take a request of so many tokens; return the headers that tell what is left.

        Raises RateLimitReached, StoreUnavailable.
        """
        headers: list[Header] = []
        for kind, most, cost in (
            (REQUESTS, limits.requests_per_minute, 1),
            (TOKENS, limits.tokens_per_minute, tokens),
        ):
            if most is not None:
                headers += await self._take(key_id, kind, most, cost, headers)
        return headers

    async def take_tokens(self, key_id: str, limits: KeyLimits, tokens: int) -> None:
        """Take tokens that an answer had beyond what was predicted. Raises StoreUnavailable."""
        most = limits.tokens_per_minute
        if most is None or tokens <= 0:
            return
        try:
            await self._limiter.hit(self._make_item(most), TOKENS, key_id, cost=tokens)
        except self._failure as error:
            raise StoreUnavailable(type(error).__name__) from None

    async def _take(
        self, key_id: str, kind: str, most: int, cost: int, before: list[Header]
    ) -> list[Header]:
        item = self._make_item(most)
        try:
            taken = await self._limiter.hit(item, kind, key_id, cost=cost)
            window = await self._limiter.get_window_stats(item, kind, key_id)
        except self._failure as error:
            raise StoreUnavailable(type(error).__name__) from None
        wait = min(max(window.reset_time - time.time(), 0.0), float(_MINUTE))
        told = [
            (f"x-ratelimit-limit-{kind}".encode(), str(most).encode()),
            (f"x-ratelimit-remaining-{kind}".encode(), str(max(0, window.remaining)).encode()),
            (f"x-ratelimit-reset-{kind}".encode(), f"{wait:.3f}s".encode()),
        ]
        if taken:
            return told
        asked = f"; this request was predicted to take {cost}" if kind == TOKENS else ""
        refusal = RateLimitReached(
            f"this API key may use {most} {kind} a minute{asked}",
            retry_after_seconds=round_up_seconds(wait),
        )
        refusal.type = kind
        refusal.more_headers = tuple(before + told)
        raise refusal
