"""The error for a request whose attempts have all failed: one for all failures."""

from collections.abc import Sequence
from http import HTTPStatus

from backends.errors import BackendError, BackendStatusError, BackendTimeout, InvalidResponse
from gateway.service.client.errors import (
    ApiError,
    BackendsRateLimited,
    BackendsUnavailable,
    BadGateway,
    GatewayTimeout,
)

UNAUTHORISED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def all_attempts_failed_error(failures: Sequence[BackendError]) -> ApiError:
    """Return the error for a request that nobody answered."""
    if not failures:
        return BackendsUnavailable(
            "no usable backend for this request at the moment", retry_after_seconds=1
        )
    last = failures[-1]
    said = f"{len(failures)} attempt(s) failed; the last: {last}"
    if all(
        isinstance(error, BackendStatusError) and error.status == HTTPStatus.TOO_MANY_REQUESTS
        for error in failures
    ):
        return BackendsRateLimited(
            said, retry_after_seconds=_shortest_retry_after_seconds(failures)
        )
    if isinstance(last, BackendStatusError) and last.status in UNAUTHORISED:
        return BadGateway(
            "the backend refused the gateway's own key",
            code="upstream_auth_failed",
            retry_after_seconds=60,
        )
    if isinstance(last, BackendTimeout):
        return GatewayTimeout(said, retry_after_seconds=1)
    if isinstance(last, InvalidResponse):
        return BadGateway(said, retry_after_seconds=1)
    return BackendsUnavailable(said, retry_after_seconds=1, code="backends_failed")


def _shortest_retry_after_seconds(failures: Sequence[BackendError]) -> int:
    """Return the shortest wait that a rate-limited backend named, 1 to 60 seconds."""
    named = [
        int(error.retry_after)
        for error in failures
        if isinstance(error, BackendStatusError)
        and error.retry_after
        and error.retry_after.isdecimal()
    ]
    return max(1, min([*named, 60])) if named else 1
