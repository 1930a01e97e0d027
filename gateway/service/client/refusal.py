"""What the body of a refusal (4xx) says, and whether it is vLLM that speaks.

vLLM has said it in these shapes over time: `{"error":{"message",…}}`, `{"object":"error",
"message",…}`, and FastAPI's `{"detail":…}` for a body that does not validate. HTML, bare text,
`{"message":…}` and the like come from something between here and vLLM.
"""

import re
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec

from backends.sse import UNREADABLE

_VALIDATION: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
_SERVERS_FAULT: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.PAYMENT_REQUIRED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.NOT_ACCEPTABLE,
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.LENGTH_REQUIRED,
        HTTPStatus.PRECONDITION_FAILED,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        HTTPStatus.EXPECTATION_FAILED,
        HTTPStatus.MISDIRECTED_REQUEST,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.UPGRADE_REQUIRED,
        HTTPStatus.PRECONDITION_REQUIRED,
        HTTPStatus.TOO_MANY_REQUESTS,
        499,
    }
)
"""Whatever the body says: key, path, method, headers, name and timing are the gateway's own."""
_CONTEXT: Final = re.compile(
    r"context[ _](length|window)|max(imum)? model len|maximum input length|max_model_len",
    re.IGNORECASE,
)
_LIMIT: Final = re.compile(r"['`\"]?max_(?:completion_|output_)?tokens")
_SAID_NOTHING: Final = "the backend refused the request"


class Refusal(NamedTuple):
    """A refusal's message, the request's member it names, and whether it has vLLM's shape."""

    message: str
    param: str | None
    is_vllms: bool
    names_model: bool

    @property
    def is_about_context(self) -> bool:
        """Whether the prompt, or what was asked for, is longer than this model's context."""
        return self.is_vllms and _CONTEXT.search(self.message) is not None

    @property
    def is_too_long_prompt(self) -> bool:
        """Whether it is the prompt, not the answer asked for, that leaves no room."""
        return self.is_about_context and _LIMIT.match(self.message) is None


class _ErrorDetail(msgspec.Struct):
    message: str | None = None
    param: Any = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail | str | None = None
    object: Any = None
    message: str | None = None
    detail: Any = None


def parse_refusal(status: int, body: bytes) -> Refusal:
    """Read the body of a refusal; what cannot be read is somebody else's than vLLM's."""
    try:
        parsed = msgspec.json.decode(body, type=_ErrorBody)
    except UNREADABLE:
        return Refusal(body[:500].decode(errors="replace") or _SAID_NOTHING, None, False, False)
    error = parsed.error
    if isinstance(error, _ErrorDetail):
        # vLLM says where in *its* request object: `body.messages`.
        param = error.param.removeprefix("body.") if isinstance(error.param, str) else None
        return Refusal(error.message or _SAID_NOTHING, param, bool(error.message), True)
    is_vllms = (parsed.object == "error" and bool(parsed.message)) or (
        bool(parsed.detail) and status in _VALIDATION
    )
    found = error or parsed.message or parsed.detail
    return Refusal(str(found) if found else _SAID_NOTHING, None, is_vllms, False)


def is_requests_fault(status: int, refusal: Refusal) -> bool:
    """Tell vLLM's own refusal of a request from a failure of the server or of a proxy."""
    return status not in _SERVERS_FAULT and refusal.is_vllms


def may_be_requests_fault(status: int) -> bool:
    """Tell whether a 4xx can be the request's doing, should a second backend say the same."""
    return 400 <= status < 500 and status not in _SERVERS_FAULT  # noqa: PLR2004
