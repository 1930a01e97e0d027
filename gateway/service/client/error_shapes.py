"""How each API writes an error: as an answer's body, and as a stream's last event.

OpenAI's is the default; the Responses API has events of its own in streams, and Anthropic's has
another shape altogether. `events` is how many events of the stream have come before.
"""

from http import HTTPStatus
from typing import Final

import msgspec

from gateway.service.client.api_error import ApiError, Header

_SERVER_ERROR: Final = HTTPStatus.INTERNAL_SERVER_ERROR


class ErrorShape:
    """OpenAI's: `{"error": …}`, in a stream as one more chunk."""

    def encode_body(self, error: ApiError, request_id: str) -> bytes:  # noqa: ARG002 - for others
        """Return an error's JSON."""
        return error.encode_json()

    def encode_event(self, error: ApiError, request_id: str, events: int) -> bytes:  # noqa: ARG002 - for others
        """Return an error as a server-sent event."""
        return b"data: " + error.encode_json() + b"\n\n"

    def name_request(self, request_id: str) -> tuple[Header, ...]:  # noqa: ARG002 - for others
        """Return the headers by which this API's clients know a request, beside our own."""
        return ()


class ResponsesErrorShape(ErrorShape):
    """The Responses API's: in a stream an event `error`.

    Its members stand where the API's reference has them, and once more in `error`, where the SDKs
    look: without that they take it for an event like any other.
    """

    def encode_event(self, error: ApiError, request_id: str, events: int) -> bytes:  # noqa: ARG002
        """Return an error as a server-sent event."""
        inner = error.to_dict()["error"]
        told = {
            "type": "error",
            "code": inner["code"],
            "message": inner["message"],
            "param": inner["param"],
            "sequence_number": events,
            "error": inner,
        }
        return b"event: error\ndata: " + msgspec.json.encode(told) + b"\n\n"


class AnthropicErrorShape(ErrorShape):
    """Anthropic's: `{"type": "error", "error": {"type", "message"}, "request_id"}`."""

    def encode_body(self, error: ApiError, request_id: str) -> bytes:
        """Return an error's JSON."""
        status = HTTPStatus(error.status)
        kind = _ANTHROPIC_TYPES.get(status)
        if kind is None:
            kind = "api_error" if status >= _SERVER_ERROR else "invalid_request_error"
        inner = {"type": kind, "message": error.message}
        return msgspec.json.encode({"type": "error", "error": inner, "request_id": request_id})

    def encode_event(self, error: ApiError, request_id: str, events: int) -> bytes:  # noqa: ARG002
        """Return an error as a server-sent event."""
        return b"event: error\ndata: " + self.encode_body(error, request_id) + b"\n\n"

    def name_request(self, request_id: str) -> tuple[Header, ...]:
        """Return the header that Anthropic's SDKs read."""
        return ((b"request-id", request_id.encode()),)


_ANTHROPIC_TYPES: Final = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout_error",
}

OPENAI_ERRORS: Final = ErrorShape()
RESPONSES_ERRORS: Final = ResponsesErrorShape()
ANTHROPIC_ERRORS: Final = AnthropicErrorShape()


def find_error_shape(path: str) -> ErrorShape:
    """Return how the API at a path writes errors."""
    if path.startswith("/v1/messages"):
        return ANTHROPIC_ERRORS
    return RESPONSES_ERRORS if path.startswith("/v1/responses") else OPENAI_ERRORS
