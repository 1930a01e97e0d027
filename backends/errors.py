"""What can go wrong between the gateway and a backend.

    BackendError
     +- Unreachable      no connection: refused, DNS, TLS, connect timeout
     +- ConnectionLost   a connection that broke before or within an answer
     +- Silent           nothing came within a deadline
     +- BadAnswer        bytes that are not what vLLM sends (HTML, cut JSON, no [DONE], a redirect)
     |   +- Oversized    more bytes than the gateway holds; the request's doing, not the server's
     +- Refused          an HTTP status of 400 or above; carries status, body, Retry-After

`backends.client` turns every error of the HTTP library into one of these; nothing else escapes it.
"""

__all__ = [
    "BackendError",
    "BackendStatusError",
    "BackendTimeout",
    "BackendUnreachable",
    "ConnectionLost",
    "InvalidResponse",
    "ResponseTooLarge",
]


class BackendError(Exception):
    """Base; `reason` is a word for metrics."""

    reason = "error"


class BackendUnreachable(BackendError):
    """No connection could be made."""

    reason = "unreachable"


class ConnectionLost(BackendError):
    """The connection broke before the answer was whole."""

    reason = "connection_lost"


class BackendTimeout(BackendError):
    """Nothing came within the deadline."""

    reason = "silent"


class InvalidResponse(BackendError):
    """The answer is not what an OpenAI-compatible server sends."""

    reason = "bad_answer"


class ResponseTooLarge(InvalidResponse):
    """The answer is over a limit of the gateway's."""

    reason = "oversized"


class BackendStatusError(BackendError):
    """The backend answered with an error status."""

    def __init__(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        super().__init__(f"the backend answered {status}")
        self.status = status
        self.body = body
        self.retry_after = retry_after

    @property
    def reason(self) -> str:  # type: ignore[override]
        """One word per class of status, so that a metric's label stays bounded."""
        return "rate_limited" if self.status == 429 else f"status_{self.status // 100}xx"  # noqa: PLR2004
