"""What can go wrong between the gateway and a backend.

    BackendError
     +- BackendUnreachable    no connection: refused, DNS, TLS, connect timeout
     +- ConnectionLost        a connection that broke before or within an answer
     +- BackendTimeout        nothing came within a deadline
     +- InvalidResponse       not what vLLM sends (HTML, cut JSON, no [DONE], a redirect)
     |   +- ResponseTooLarge  more bytes than the gateway holds: the request's doing
     +- BackendStatusError    an HTTP status of 400 or above; carries status, body, Retry-After

`answered` tells those that a server gave from those of a server that could not be reached.

`backends.client` turns every error of the HTTP library into one of these; nothing else escapes it.
"""

from typing import TypeVar

__all__ = [
    "BackendError",
    "BackendStatusError",
    "BackendTimeout",
    "BackendUnreachable",
    "ConnectionLost",
    "InvalidResponse",
    "ResponseTooLarge",
]

_Error = TypeVar("_Error", bound=BaseException)


def forget_frames(error: _Error) -> _Error:
    """Return an error that is kept, without the frames it passed: they hold bodies and answers.

    A frame that holds its own error besides is a cycle, which only a garbage collection frees.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


class BackendError(Exception):
    """Base; `reason` is a word for metrics."""

    reason = "error"
    answered = False


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
    answered = True


class ResponseTooLarge(InvalidResponse):
    """The answer is over a limit of the gateway's."""

    reason = "oversized"


class BackendStatusError(BackendError):
    """The backend answered with an error status, and maybe when to ask again."""

    answered = True

    def __init__(self, status: int, body: bytes, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"the backend answered {status}")
        self.status = status
        self.body = body
        self.retry_after_seconds = retry_after_seconds

    @property
    def reason(self) -> str:  # type: ignore[override]
        """One word per class of status, so that a metric's label stays bounded."""
        return "rate_limited" if self.status == 429 else f"status_{self.status // 100}xx"  # noqa: PLR2004
