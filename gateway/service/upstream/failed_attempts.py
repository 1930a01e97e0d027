"""The failed attempts of one request: whose fault they are, and what the client is told.

Rules: who does not answer (refused, reset, silent) is to blame at once, and so is who answers
nonsense. An error status is blamed on its backend once the request is over, unless a second backend
gave the same one: then it is the request's. 429 is nobody's fault; a refused key (401, 403) is the
backend's, whoever else refuses it; a 404 is one of the (address, model), unless it is of a stored
answer that the client named. A refusal because of the context's length is nobody's fault either:
models with a larger one may take the request.
"""

from http import HTTPStatus
from typing import Final

from backends.bearer import hide_bearer
from backends.errors import (
    BackendError,
    BackendStatusError,
    BackendTimeout,
    BackendUnreachable,
    InvalidResponse,
    forget_frames,
)
from backends.registry import Backend, Deployment
from backends.retry_after import round_up_seconds
from gateway.service.client.api_error import ApiError
from gateway.service.client.errors import (
    BackendsRateLimited,
    BackendsUnavailable,
    BadGateway,
    GatewayTimeout,
    NoServerThere,
    UpstreamRejection,
)
from gateway.service.client.refusal import (
    is_requests_fault,
    may_be_requests_fault,
    parse_refusal,
)

_KEY_REFUSED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_WAIT_STATUSES: Final = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}


class FailedAttempts:
    """What went wrong with one request so far."""

    __slots__ = ("_by_status", "_context_refusal", "errors", "refused_context", "tried")

    def __init__(self) -> None:
        self.errors: list[BackendError] = []
        self.tried: set[Backend] = set()
        """Those that need not be asked again for this request, whatever the model."""
        self.refused_context = 0
        """The largest context, in tokens, that a backend said was too small."""
        self._context_refusal: UpstreamRejection | None = None
        self._by_status: dict[int, set[Backend]] = {}

    @property
    def cost_nothing(self) -> bool:
        """Whether the last one cost nobody anything, so that the next attempt is no retry.

        A refused connection was no attempt at all; a prompt that is too long was only counted.
        """
        last = self.errors[-1] if self.errors else None
        return isinstance(last, BackendUnreachable) or self._is_context_refusal(last)

    @property
    def count(self) -> int:
        """How many reached a server."""
        return sum(not isinstance(error, BackendUnreachable) for error in self.errors)

    @property
    def is_requests_fault(self) -> bool:
        """Whether two backends refused the request with the same status."""
        return any(map(self._was_given_twice, self._by_status))

    def _was_given_twice(self, status: int) -> bool:
        return may_be_requests_fault(status) and len(self._by_status.get(status, ())) > 1

    def add_failure(
        self, error: BackendError, backend: Backend, deployment: Deployment, context: int
    ) -> None:
        """Note a failed attempt. Raises UpstreamRejection where vLLM refused the request itself.

        `context` is the deployment's, in tokens.
        """
        if not isinstance(error, BackendStatusError):
            backend.record_failure(f"{error.reason}: {error}", answered=error.answered)
        else:
            self._add_status(error, backend, deployment, context)
        if not (isinstance(error, BackendStatusError) and error.status == HTTPStatus.NOT_FOUND):
            self.tried.add(backend)
        self.errors.append(forget_frames(error))

    def _add_status(
        self, error: BackendStatusError, backend: Backend, deployment: Deployment, context: int
    ) -> None:
        status = error.status
        error.body = hide_bearer(error.body, backend.headers)
        if status in _WAIT_STATUSES:
            backend.record_retry_after(error.retry_after_seconds, status)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return
        if status in _KEY_REFUSED:
            backend.record_failure(f"it refused the gateway's key ({status})", answered=True)
        elif status == HTTPStatus.NOT_FOUND:
            if parse_refusal(status, error.body).param == "response_id":
                raise UpstreamRejection(status, error.body) from None
            deployment.record_missing(backend)
        elif status < HTTPStatus.INTERNAL_SERVER_ERROR and is_requests_fault(
            status, refusal := parse_refusal(status, error.body)
        ):
            backend.record_success()
            rejection = UpstreamRejection(status, error.body)
            if not refusal.is_about_context:
                raise rejection from None
            self.refused_context = max(self.refused_context, context)
            self._context_refusal = forget_frames(rejection)
        else:
            self._by_status.setdefault(status, set()).add(backend)

    def blame_backends(self) -> None:
        """Count error statuses against the backends that gave them; once, when all is over."""
        for status, backends in self._by_status.items():
            if len(backends) == 1:
                for backend in backends:
                    backend.record_failure(f"it answered {status}", answered=True)
        self._by_status.clear()

    def _is_context_refusal(self, error: BackendError | None) -> bool:
        return (
            self._context_refusal is not None
            and isinstance(error, BackendStatusError)
            and may_be_requests_fault(error.status)
            and parse_refusal(error.status, error.body).is_about_context
        )

    def build_error(self) -> ApiError:
        """Return the error for a request that nobody answered."""
        others = [error for error in self.errors if not self._is_context_refusal(error)]
        if not others and self._context_refusal is not None:
            return self._context_refusal
        for error in reversed(others):
            if isinstance(error, BackendStatusError) and self._was_given_twice(error.status):
                return UpstreamRejection(error.status, error.body)
        return all_attempts_failed_error(others)


def all_attempts_failed_error(failures: list[BackendError]) -> ApiError:
    """Return the one error that stands for all failures."""
    if not failures:
        return BackendsUnavailable(
            "no usable backend for this request at the moment", retry_after_seconds=1
        )
    last = failures[-1]
    said = f"{len(failures)} attempt(s) failed; the last: {last}"
    statuses = {error.status if isinstance(error, BackendStatusError) else 0 for error in failures}
    status = last.status if isinstance(last, BackendStatusError) else 0
    wait_seconds = _find_shortest_wait_seconds(failures) if statuses <= _WAIT_STATUSES else 1
    if statuses == {HTTPStatus.TOO_MANY_REQUESTS}:
        return BackendsRateLimited(said, retry_after_seconds=wait_seconds)
    if isinstance(last, BackendTimeout):
        return GatewayTimeout(said, retry_after_seconds=1)
    if status in _KEY_REFUSED:
        return BadGateway(
            "the backend refused the gateway's own key",
            code="upstream_auth_failed",
            retry_after_seconds=60,
        )
    # A 4xx that is not the request's is as much nonsense as HTML.
    is_odd = 0 < status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _WAIT_STATUSES
    if is_odd or isinstance(last, InvalidResponse):
        return BadGateway(said, retry_after_seconds=1)
    return (
        NoServerThere(said, retry_after_seconds=wait_seconds)
        if all(map(_is_absence, failures))
        else BackendsUnavailable(said, retry_after_seconds=wait_seconds, code="backends_failed")
    )


def _is_absence(error: BackendError) -> bool:
    """Whether nobody was there, or who was said when to come back, as one that leaves does."""
    if isinstance(error, BackendStatusError):
        return error.status == HTTPStatus.SERVICE_UNAVAILABLE and bool(error.retry_after_seconds)
    return isinstance(error, BackendUnreachable)


def _find_shortest_wait_seconds(failures: list[BackendError]) -> int:
    """Return the shortest wait that a backend named, 1 to 60 seconds; 1 where none did."""
    named = [
        error.retry_after_seconds
        for error in failures
        if isinstance(error, BackendStatusError) and error.retry_after_seconds is not None
    ]
    return round_up_seconds(min(named, default=1.0))
