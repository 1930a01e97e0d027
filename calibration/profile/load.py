"""How many other requests a server has: our own for certain, others' as its gauges tell."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

_REFRESH_SECONDS: Final = 2.0


class LoadGauges:
    """Requests in flight, counted here first: a server's gauges can lag by seconds.

    `scrape` returns the server's (running, waiting) or None. What it shows beyond the most that we
    had in flight lately is somebody else's.
    """

    def __init__(
        self,
        scrape: Callable[[], Awaitable[tuple[int, int] | None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scrape = scrape
        self._clock = clock
        self._own = 0
        self._peaks = (0, 0)  # the most in flight since the last scrape, and before that
        self._seen: tuple[int, int] | None = None
        self._foreign = 0
        self._at = float("-inf")
        self._scraping: asyncio.Task[None] | None = None

    def schedule_refresh(self) -> None:
        """Scrape beside what is going on: under load no slot may stand empty for it."""
        if self._scraping is None or self._scraping.done():
            self._scraping = asyncio.create_task(self.refresh_load())

    async def close(self) -> None:
        """End what `refresh_soon` began."""
        if self._scraping is not None:
            self._scraping.cancel()
            await asyncio.gather(self._scraping, return_exceptions=True)

    async def refresh_load(self) -> None:
        """Scrape, unless that was done just now."""
        now = self._clock()
        if now - self._at < _REFRESH_SECONDS:
            return
        self._at = now
        seen = await self._scrape()
        self._seen = seen
        self._foreign = max(0, sum(seen) - max(self._peaks)) if seen else 0
        self._peaks = (self._own, self._peaks[0])

    @contextlib.contextmanager
    def track_request(self) -> Iterator[None]:
        """Count one of our own as in flight."""
        self._own += 1
        self._peaks = (max(self._peaks[0], self._own), self._peaks[1])
        try:
            yield
        finally:
            self._own -= 1

    def count_other_requests(self) -> tuple[int, int | None]:
        """Return (in flight, waiting) without the request that is about to be sent.

        In flight counts those that wait, as the gateway does when it predicts; waiting is what
        the last scrape told, None without one.
        """
        total = self._own + self._foreign
        return total, None if self._seen is None else min(self._seen[1], total)
