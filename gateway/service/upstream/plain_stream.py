"""Answers of APIs that nobody here reads: passed on as they come, whole with their proper end."""

import time

import msgspec
from msgspec import Raw, Struct

from backends import sse
from backends.errors import BackendError, BackendStatusError, InvalidResponse
from gateway.service.request.named_endpoints import NamedEndpoint
from gateway.service.upstream.relay import StreamedResponse, UnaryResponse, find_status


class _PlainAnswer(Struct):
    id: Raw = sse.ABSENT
    model: str | None = None
    usage: sse.TokenUsage | None = None
    error: Raw = sse.ABSENT


def parse_plain_unary(kind: NamedEndpoint, body: bytes, content_type: str) -> UnaryResponse:
    """Look at a whole answer as little as tells it from garbage, and read its usage.

    Raises InvalidResponse, or BackendStatusError for an error sent with status 200.
    """
    if content_type.startswith("text/html"):
        raise InvalidResponse("a page of HTML")
    if not content_type.startswith("application/json"):
        return UnaryResponse()
    try:
        body.decode()
        whole = msgspec.json.decode(body, type=Raw)
        if not bytes(whole).startswith(b"{"):
            return UnaryResponse()
        parsed = msgspec.json.decode(body, type=_PlainAnswer)
    except msgspec.ValidationError:
        return UnaryResponse()
    except sse.UNREADABLE as error:
        raise InvalidResponse(f"an answer that is not JSON: {error}") from None
    if sse.is_error(parsed.error):
        raise BackendStatusError(find_status(parsed.error), body)
    if not kind.generates:
        return UnaryResponse(model=parsed.model)
    return UnaryResponse(id=parsed.id, model=parsed.model, usage=parsed.usage)


class PlainStream(StreamedResponse):
    """A streamed answer whose events are not looked into, but for errors."""

    __slots__ = ()

    def _end_body(self) -> bytes:
        """Nobody here knows what ends such a stream but its end."""
        self._done = True
        return b""

    def _look(self, block: bytes) -> bytes:
        """Return what a client is to be sent of a block of whole events."""
        kept = []
        try:
            for event in sse.split_events(block):
                if self._opens_answer(event):
                    self.chunks += 1
                    self._lifeline.last = time.monotonic()
                kept.append(event)
        except BackendError as error:
            self._broken = error.with_traceback(None)
        whole = b"".join(kept)
        return whole if self._rename is None else self._rename(whole)

    def _opens_answer(self, event: bytes) -> bool:
        """Tell whether an event has data. Raises BackendStatusError where it is an error."""
        data = sse.extract_payload(event)
        if b'"error"' in data:
            try:
                parsed = sse.decode_chunk(data)
            except InvalidResponse:
                return True
            if sse.is_error(parsed.error):
                raise BackendStatusError(find_status(parsed.error), data)
        return bool(data)
