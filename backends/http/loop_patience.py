"""A time limit that counts only the time in which the event loop ran.

A timer says that time has passed, not that anybody looked: where the loop was held up, an answer
may have been there all along, unread. So the limit is counted in turns of a short timer, and one
that comes late does not count; whoever waits then still has the time to see what came meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_TICKS: Final = 10
"""Into which a limit is cut."""
_MOST_TICKS: Final = 4 * _TICKS
"""A loop that is always late must come to an end too."""


class _TickCounter:
    """Ends `timeout` once enough ticks have come in time."""

    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._tick_seconds = seconds / _TICKS
        self._in_time = 0
        self._ticks = 0
        self._wait()

    def stop(self) -> None:
        """Count no more."""
        self._timer.cancel()

    def _wait(self) -> None:
        self._due = self._loop.time() + self._tick_seconds
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._ticks += 1
        self._in_time += self._loop.time() - self._due < self._tick_seconds
        if self._in_time >= _TICKS or self._ticks >= _MOST_TICKS:
            self._timeout.reschedule(self._loop.time())
        else:
            self._wait()


@asynccontextmanager
async def limit_loop_seconds(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError around what takes longer, the loop's own delays left out."""
    async with asyncio.timeout(None) as timeout:
        counter = _TickCounter(timeout, seconds)
        try:
            yield
        finally:
            counter.stop()
