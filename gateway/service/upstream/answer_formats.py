"""Which file reads which API's answers: whole ones, and streams."""

from backends.client import BackendResponse
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.named_endpoints import NamedEndpoint
from gateway.service.upstream.chunk_stream import ChunkStream
from gateway.service.upstream.plain_stream import PlainStream, parse_plain_unary
from gateway.service.upstream.relay import StreamedResponse, UnaryResponse, parse_unary
from gateway.service.upstream.typed_events import (
    MESSAGES_EVENTS,
    RESPONSES_EVENTS,
    TypedEventStream,
)
from gateway.service.upstream.typed_usage import parse_typed_unary

_EVENTS = {
    EndpointKind.RESPONSES: RESPONSES_EVENTS,
    EndpointKind.MESSAGES: MESSAGES_EVENTS,
}
_TYPED = frozenset({*_EVENTS, EndpointKind.COUNT_TOKENS})


def parse_answer(
    kind: EndpointKind | NamedEndpoint, body: bytes, content_type: str | None = None
) -> UnaryResponse:
    """Validate a unary answer. Raises InvalidResponse and BackendStatusError."""
    if isinstance(kind, NamedEndpoint):
        return parse_plain_unary(kind, body, content_type or "")
    return parse_typed_unary(body) if kind in _TYPED else parse_unary(body)


def make_stream(ask: InferenceRequest, answer: BackendResponse, model: str) -> StreamedResponse:
    """Return what relays a stream of this API; `model` is the name that its client is to see."""
    if isinstance(ask.kind, NamedEndpoint):
        return PlainStream(answer, model)
    events = _EVENTS.get(ask.kind)
    if events is not None:
        return TypedEventStream(answer, model, events)
    return ChunkStream(answer, model, wants_usage=ask.wants_usage, choices=ask.choices)
