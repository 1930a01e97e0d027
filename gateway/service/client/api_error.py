"""What every error is to a client: a status, OpenAI's JSON, and whether to try again.

The errors themselves are in `gateway.service.client.errors`.
"""

from http import HTTPStatus
from typing import Any

import msgspec

Header = tuple[bytes, bytes]


class ApiError(Exception):
    """Base. `status` is the HTTP status, `type`, `code` and `param` are OpenAI's fields."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR.value
    type = "server_error"
    code: str | None = "internal_error"
    param: str | None = None
    more_headers: tuple[Header, ...] = ()
    should_retry = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if param is not None:
            self.param = param
        if code is not None:
            self.code = code
        self.retry_after_seconds = retry_after_seconds

    @property
    def logged(self) -> str:
        """What logs and traces are told: a client's own mistake without the words it made it in."""
        if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self.message
        return f"{self.code or self.type}{f': {self.param}' if self.param else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Return OpenAI's error object."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def encode_json(self) -> bytes:
        """Return OpenAI's error object as JSON."""
        return msgspec.json.encode(self.to_dict())

    def build_headers(self) -> list[Header]:
        """Return the headers that tell an SDK whether and when to try again."""
        # Our own attempts are spent: without this an SDK would multiply them by three.
        final = self.status >= 429 and not self.should_retry  # noqa: PLR2004
        headers = [(b"x-should-retry", b"false")] if final else []
        headers.extend(self.more_headers)
        if self.retry_after_seconds is not None:
            headers.append((b"retry-after", str(self.retry_after_seconds).encode()))
        return headers
