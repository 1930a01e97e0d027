"""Cancellation of a request from outside: by its client, a deadline, or the gateway stopping.

                    cancel(SILENT)
        +---------+ --------------> +--------+   another backend is asked, if there is one
        |         | <-------------- | SILENT |
        |         |     resume      +--------+
        | RUNNING |                     |  cancel(other), noted; resume
        |         |                     v
        |         |  cancel(other)  +-----------+
        |         | --------------> | CANCELLED |   the first reason stays
        +---------+ <-------------- +-----------+
             |          resume          |      resume: the client can still be told of an error
             | detach                   | detach
             v                          v
        +--------------------------------------+
        | DETACHED: nothing cancels it any more |
        +--------------------------------------+

Rules: the reason is noted and the request's task is cancelled, wherever it waits; whoever catches
the CancelledError asks `consume` for the cause, and None means that it was not one of these. Why a
task was cancelled, and whether the client is to blame for it, is decided in this file only.
Deadlines are kept by one timer that looks at every request ten times a second, because a timer per
request costs more than it is worth.
"""

import asyncio
import math
import time
from enum import StrEnum

SWEEP_SECONDS = 0.1
_LATE_SECONDS = 5 * SWEEP_SECONDS
"""Between two looks: the event loop was held up, and nobody who waited is to blame for that."""
_LATE_FACTOR = 4.0
"""A loop that is always late must cancel too."""


class CancelReason(StrEnum):
    """Why a request was cancelled."""

    CLIENT_GONE = "client_gone"
    SILENT = "silent"
    STALLED = "stalled"
    TOO_LONG = "too_long"
    DRAINING = "draining"


class RequestCancellation:
    """The cancellation of one request's task; made inside that task."""

    __slots__ = ("_after_silence", "_expiry", "_seconds", "_task", "_until", "last", "reason")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._seconds = math.inf
        self._until = math.inf
        self._expiry = CancelReason.STALLED
        self._after_silence: CancelReason | None = None
        self.last = 0.0
        self.reason: CancelReason | None = None

    def cancel(self, reason: CancelReason) -> None:
        """Cancel the request, unless it is over or cancelled already."""
        if self._task is None:
            return
        if self.reason is None:
            self.reason = reason
            self._task.cancel()
        elif self.reason is CancelReason.SILENT and self._after_silence is None:
            # The request may go on after a silent backend; this it must not survive.
            self._after_silence = reason

    def set_deadline(self, seconds: float, expiry: CancelReason) -> None:
        """Cancel for `expiry` once `last`, which is now, is `seconds` old."""
        self.last = time.monotonic()
        self._seconds = seconds
        self._expiry = expiry

    def end_within(self, seconds: float) -> None:
        """Cancel for `TOO_LONG` in `seconds` from now, whatever comes until then."""
        self._until = time.monotonic() + seconds

    def clear_deadline(self) -> None:
        """Lift the deadline."""
        self._seconds = math.inf

    def check_deadline(self, now: float, *, late: bool = False) -> None:
        """Cancel if the deadline has passed; `now` is monotonic time.

        Where the look itself comes `late`, what came meanwhile is not read yet: only what has been
        silent for several times as long is cancelled, the others are looked at once more.
        """
        if now - self.last >= self._seconds * (_LATE_FACTOR if late else 1.0):
            self.cancel(self._expiry)
        elif now >= self._until:
            self.cancel(CancelReason.TOO_LONG)

    def find_cause(self, *, client_blocked: bool) -> CancelReason | None:
        """Return why it was cancelled; a client that stopped reading counts as gone.

        Such a client is what a stalled or drained request waited for: no backend is to blame.
        """
        if client_blocked and self.reason is not None:
            return CancelReason.CLIENT_GONE
        return self.reason

    def consume(self, *, client_blocked: bool = False) -> CancelReason | None:
        """Take back the cancellation if it was ours; return its cause, or None if it was not."""
        if self.reason is not None and self._task is not None:
            self._task.uncancel()
        return self.find_cause(client_blocked=client_blocked)

    def resume_after_silence(self) -> bool:
        """Go on if it was cancelled for a silent backend; tell whether it was."""
        if self.reason is not CancelReason.SILENT:
            return False
        self.consume()
        self.resume()
        return True

    def resume(self) -> None:
        """Go on after a consumed cancellation, unless another reason has come up since."""
        self.reason = None
        self._seconds = self._until = math.inf
        if self._after_silence is not None:
            self.cancel(self._after_silence)

    def detach(self) -> None:
        """Detach from the task: nothing cancels it any more."""
        self._task = None


class InflightRequests:
    """Every request in flight."""

    def __init__(self) -> None:
        self._alive: set[RequestCancellation] = set()
        self._looked_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._alive)

    def add_request(self, lifeline: RequestCancellation) -> None:
        """Check its deadline from now on."""
        self._alive.add(lifeline)

    def remove_request(self, lifeline: RequestCancellation) -> None:
        """Forget a request that is over."""
        lifeline.detach()
        self._alive.discard(lifeline)

    def cancel_all(self, reason: CancelReason) -> None:
        """Cancel them all."""
        for lifeline in tuple(self._alive):
            lifeline.cancel(reason)

    def check_deadlines(self) -> None:
        """Cancel those whose deadline has passed."""
        now = time.monotonic()
        late = now - self._looked_at >= _LATE_SECONDS
        self._looked_at = now
        for lifeline in tuple(self._alive):
            lifeline.check_deadline(now, late=late)
