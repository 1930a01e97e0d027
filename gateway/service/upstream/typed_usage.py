"""Token counts as Responses and Messages have them, and unary answers of either read for them."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from backends import sse
from backends.errors import BackendStatusError, InvalidResponse
from gateway.service.upstream.relay import UnaryResponse, find_status


class TypedUsage(Struct):
    """Input and output tokens; Anthropic's input is what did not come from a cache."""

    input_tokens: Any = 0
    output_tokens: Any = None
    input_tokens_details: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None

    def to_token_usage(self) -> sse.TokenUsage:
        """Return the same counts as chat's usage has them; what cannot be is left out."""
        read = _count(self.cache_read_input_tokens)
        prompt = _count(self.input_tokens) + read + _count(self.cache_creation_input_tokens)
        details = self.input_tokens_details
        if isinstance(self.cache_read_input_tokens, int):
            details = {"cached_tokens": read}
        return sse.TokenUsage(
            prompt,
            self.output_tokens if isinstance(self.output_tokens, int) else None,
            None,
            details if isinstance(details, dict) else None,
        )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


class _UnaryAnswer(Struct):
    id: str | None = None
    type: str | None = None
    object: str | None = None
    model: str | None = None
    usage: TypedUsage | None = None
    metrics: Raw = sse.ABSENT
    error: Raw = sse.ABSENT
    output: Raw = sse.ABSENT
    content: Raw = sse.ABSENT
    input_tokens: Any = None


_answer = msgspec.json.Decoder(_UnaryAnswer)
_ABSENT_ID: Final = sse.ABSENT


def parse_typed_unary(body: bytes) -> UnaryResponse:
    """Validate a unary answer of Responses, Messages or its token counting.

    Raises InvalidResponse, or BackendStatusError for an error sent with status 200.
    """
    if not body.isascii() and not sse.is_text(body):
        raise InvalidResponse("an answer that is not UTF-8 text")
    try:
        parsed = _answer.decode(body)
    except sse.UNREADABLE as error:
        raise InvalidResponse(f"an answer that is not JSON as vLLM sends it: {error}") from None
    if sse.is_error(parsed.error):
        raise BackendStatusError(find_status(parsed.error), body)
    counts_only = isinstance(parsed.input_tokens, int)
    if not bytes(parsed.output) and not bytes(parsed.content) and not counts_only:
        raise InvalidResponse("an answer without output or content")
    return UnaryResponse(
        id=_ABSENT_ID if parsed.id is None else Raw(msgspec.json.encode(parsed.id)),
        model=parsed.model,
        usage=None if parsed.usage is None else parsed.usage.to_token_usage(),
        metrics=parsed.metrics,
    )
