"""Retry policy: which failures are retried, which are only counted, and which end a run."""

import asyncio
import collections
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from backends.errors import BackendError, BackendStatusError
from calibration.endpoint.server import TargetServer

MAX_ATTEMPTS: Final = 4
MAX_CONSECUTIVE_FAILURES: Final = 5
RETRYABLE_STATUSES: Final = frozenset({408, 409, 425, 429})
_AUTH_ERROR_STATUSES: Final = frozenset({401, 403})
_FIRST_SERVER_ERROR_STATUS: Final = 500

T = TypeVar("T")


def describe_unreachable(target: TargetServer, error: BackendError) -> str:
    """Say that a backend did not answer /v1/models, and what to check."""
    return (
        f"{target.name} at {target.url}: {error}; is its server up, and that its address? "
        f"curl {target.url}/v1/models should list the model (--api-key-env, if it wants a key)"
    )


class CollectError(Exception):
    """The run cannot go on; what was measured is in the file."""


@dataclass(slots=True)
class FailureStats:
    """Failures that did not end the run."""

    retries: collections.Counter[str] = field(default_factory=collections.Counter)
    """Failed tries by reason."""
    given_up: int = 0
    """Requests that failed `MAX_ATTEMPTS` times, or that the server refused."""
    refusals: list[str] = field(default_factory=list)
    """The first few response bodies of errors."""


class RetryPolicy:
    """Runs requests against one target; waits `retry_seconds`, then twice as long, and so on."""

    def __init__(self, target: TargetServer, trouble: FailureStats, retry_seconds: float) -> None:
        self._target = target
        self._failure_stats = trouble
        self._retry_seconds = retry_seconds
        self._consecutive_failures = 0

    async def call_once(self, act: Callable[[], Awaitable[T]]) -> T | None:
        """Call once; None on failure."""
        try:
            return await act()
        except BackendError as error:
            self._failure_stats.retries[error.reason] += 1
            return None

    async def call(self, act: Callable[[], Awaitable[T]]) -> T | None:
        """Call with retries and exponential backoff; None if all fail.

        Raises CollectError where the backend is unreachable.
        """
        last: BackendError | None = None
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._retry_seconds * 2 ** (attempt - 1))
            try:
                done = await act()
            except BackendError as error:
                last = error
                self._failure_stats.retries[error.reason] += 1
                if isinstance(error, BackendStatusError) and self._record_refusal(error):
                    return None
            else:
                self._consecutive_failures = 0
                return done
        self._consecutive_failures += 1
        name = self._target.name
        if not await self._target.is_reachable():
            raise CollectError(f"{name}: the backend at {self._target.url} is gone: {last}")
        if self._consecutive_failures >= MAX_CONSECUTIVE_FAILURES:
            raise CollectError(
                f"{name}: {self._consecutive_failures} requests in a row failed: {last}"
            )
        return None

    def _record_refusal(self, error: BackendStatusError) -> bool:
        """Note the response body; return whether a retry is of no use."""
        words = f"{error.status}: {error.body[:300].decode('utf-8', 'replace')}"
        if error.status in _AUTH_ERROR_STATUSES:
            raise CollectError(
                f"{self._target.name}: the backend wants another key (--api-key-env): {words}"
            )
        if len(self._failure_stats.refusals) < MAX_ATTEMPTS:
            self._failure_stats.refusals.append(words)
        return error.status < _FIRST_SERVER_ERROR_STATUS and error.status not in RETRYABLE_STATUSES
