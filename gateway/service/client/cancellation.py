"""What can end a request from outside: its client, a deadline, or the gateway stopping.

All cut the same way: the reason is noted and the request's task is cancelled, wherever it waits.
Whoever catches the cancellation asks `absorb` for the reason. Deadlines are kept by one timer that
looks at every request ten times a second, because a timer per request costs more than it is worth.
"""

import asyncio
import math
import time
from enum import StrEnum

SWEEP_SECONDS = 0.1


class CancelReason(StrEnum):
    """Why a request was cut off."""

    CLIENT_GONE = "client_gone"
    SILENT = "silent"
    STALLED = "stalled"
    DRAINING = "draining"


class RequestCancellation:
    """Holds one request's task; made inside it."""

    __slots__ = ("_after_silence", "_expiry", "_seconds", "_task", "last", "reason")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._seconds = math.inf
        self._expiry = CancelReason.STALLED
        self._after_silence: CancelReason | None = None
        self.last = 0.0
        self.reason: CancelReason | None = None

    def cancel(self, reason: CancelReason) -> None:
        """End the request, unless it is over or cut already."""
        if self._task is None:
            return
        if self.reason is None:
            self.reason = reason
            self._task.cancel()
        elif self.reason is CancelReason.SILENT and self._after_silence is None:
            # The request may go on after a silent backend; this it must not survive.
            self._after_silence = reason

    def set_deadline(self, seconds: float, expiry: CancelReason) -> None:
        """Cut for `expiry` once `last`, which is now, is `seconds` old."""
        self.last = time.monotonic()
        self._seconds = seconds
        self._expiry = expiry

    def clear_deadline(self) -> None:
        """Lift the deadline."""
        self._seconds = math.inf

    def check_deadline(self, now: float) -> None:
        """Cut if a deadline has passed; `now` is monotonic time."""
        if now - self.last >= self._seconds:
            self.cancel(self._expiry)

    def consume(self) -> CancelReason | None:
        """Take back the cancellation if it was ours; return its reason, or None if it was not."""
        if self.reason is not None and self._task is not None:
            self._task.uncancel()
        return self.reason

    def resume(self) -> None:
        """Go on after an absorbed cut that was not the request's end, if nothing else was."""
        self.reason = None
        self._seconds = math.inf
        if self._after_silence is not None:
            self.cancel(self._after_silence)

    def detach(self) -> None:
        """Let go of the task: nothing cuts it any more."""
        self._task = None


class InflightRequests:
    """Every request in flight."""

    def __init__(self) -> None:
        self._alive: set[RequestCancellation] = set()

    def add_request(self, lifeline: RequestCancellation) -> None:
        """Keep its deadlines from now on."""
        self._alive.add(lifeline)

    def remove_request(self, lifeline: RequestCancellation) -> None:
        """Let go of a request that is over."""
        lifeline.detach()
        self._alive.discard(lifeline)

    def cancel_all(self, reason: CancelReason) -> None:
        """End them all."""
        for lifeline in tuple(self._alive):
            lifeline.cancel(reason)

    def check_deadlines(self) -> None:
        """Cut those whose deadline has passed."""
        now = time.monotonic()
        for lifeline in tuple(self._alive):
            lifeline.check_deadline(now)
