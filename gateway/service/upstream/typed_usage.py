"""Token counts as Responses and Messages have them, and unary answers of either read for them."""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct

from backends import sse
from backends.errors import InvalidResponse
from gateway.service.upstream.relay import UnaryResponse, decode_unary


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
    status: Any = None
    stop_reason: Any = UNSET
    input_tokens: Any = None


GIVEN_UP_STATUS: Final = ("failed", "cancelled")
"""What vLLM says of a response that it aborted; of such a message it says no `stop_reason`."""
_answer = msgspec.json.Decoder(_UnaryAnswer)


def parse_typed_unary(body: bytes) -> UnaryResponse:
    """Validate a unary answer of Responses, Messages or its token counting.

    Raises what `decode_unary` does.
    """
    parsed = decode_unary(body, _answer)
    counts_only = isinstance(parsed.input_tokens, int)
    if not bytes(parsed.output) and not bytes(parsed.content) and not counts_only:
        raise InvalidResponse("an answer without output or content")
    if parsed.stop_reason is None or parsed.status in GIVEN_UP_STATUS:
        raise InvalidResponse("it gave the answer up")
    return UnaryResponse(
        id=sse.ABSENT if parsed.id is None else Raw(msgspec.json.encode(parsed.id)),
        model=parsed.model,
        usage=None if parsed.usage is None else parsed.usage.to_token_usage(),
        metrics=parsed.metrics,
    )
