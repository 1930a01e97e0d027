"""What can end a request from outside: its client, its own silence, or the gateway stopping.

All three cut the same way: the reason is noted and the request's task is cancelled, wherever it
waits. Whoever catches the cancellation asks `reason` what to tell the client, if it is there.
"""

import asyncio
import time
from enum import StrEnum


class Cut(StrEnum):
    """Why a request was cut off."""

    CLIENT_GONE = "client_gone"
    STALLED = "stalled"
    DRAINING = "draining"


class Lifeline:
    """Holds one request's task; made inside it."""

    __slots__ = ("_loop", "_seconds", "_task", "_timer", "last", "reason")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._seconds = 0.0
        self.last = 0.0
        self.reason: Cut | None = None

    def cut(self, reason: Cut) -> None:
        """End the request, unless it is over or cut already."""
        if self._task is not None and self.reason is None:
            self.reason = reason
            self._task.cancel()

    def watch(self, seconds: float) -> None:
        """Cut as STALLED once `last` is `seconds` old. One timer, not one per chunk."""
        self._seconds = seconds
        self.last = time.monotonic()
        self._timer = self._loop.call_later(seconds, self._check)

    def _check(self) -> None:
        left = self.last + self._seconds - time.monotonic()
        if left <= 0.0:
            self.cut(Cut.STALLED)
        else:
            self._timer = self._loop.call_later(left, self._check)

    def absorb(self) -> Cut | None:
        """Take back the cancellation if it was ours; return its reason, or None if it was not."""
        if self.reason is not None and self._task is not None:
            self._task.uncancel()
        return self.reason

    def release(self) -> None:
        """Let go of the task: nothing cuts it any more."""
        self._task = None
        if self._timer is not None:
            self._timer.cancel()
