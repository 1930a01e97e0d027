"""Streams of typed events on their way to a client: the Responses API's and Anthropic's Messages.

Rules, beside those of a stream of chunks: each event says by its `type` what it is; what opens an
answer is no content; an answer is whole with its last event (`response.completed` or `.incomplete`,
`message_stop`) and broken without it, or where the backend says that it failed: then the client
gets the API's own error event, from whoever serves it.
"""

import time
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from backends import sse
from backends.client import BackendResponse
from backends.errors import BackendError, BackendStatusError, InvalidResponse
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.client.response import ResponseWriter
from gateway.service.upstream.relay import (
    Explain,
    StreamedResponse,
    add_explanation,
    find_status,
)
from gateway.service.upstream.typed_usage import GIVEN_UP_STATUS, TypedUsage
from gateway.service.upstream.usage_impact import add_usage_impact


class EventApi(NamedTuple):
    """What tells one API's events apart.

    `delta` stands in the bytes of an event that only carries a token's text, and in no other;
    `whole` names the member that holds the answer, which carries usage, id and model. `finish` is
    the event that says why an answer ends: an ending before it is none, and once it has come,
    `last` may be added by the gateway.
    """

    openings: frozenset[str]
    endings: frozenset[str]
    failures: frozenset[str]
    delta: bytes
    whole: str
    finish: str | None = None
    last: bytes = b""


RESPONSES_EVENTS: Final = EventApi(
    openings=frozenset(
        {
            "response.created",
            "response.queued",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_part.added",
        }
    ),
    endings=frozenset({"response.completed", "response.incomplete", "response.cancelled"}),
    failures=frozenset({"response.failed", "error"}),
    delta=b".delta\ndata: {",
    whole="response",
)
MESSAGES_EVENTS: Final = EventApi(
    openings=frozenset({"message_start", "ping", "content_block_start"}),
    endings=frozenset({"message_stop"}),
    failures=frozenset({"error"}),
    delta=b"content_block_delta\ndata: {",
    whole="message",
    finish="message_delta",
    last=b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)


class _Event(Struct):
    type: str = ""
    response: Raw = sse.ABSENT
    message: Raw = sse.ABSENT
    usage: TypedUsage | None = None
    error: Raw = sse.ABSENT
    delta: Raw = sse.ABSENT


class _Whole(Struct):
    id: str | None = None
    model: str | None = None
    status: Any = None
    usage: TypedUsage | None = None


class _Delta(Struct):
    stop_reason: Any = None


_delta = msgspec.json.Decoder(_Delta)
_event = msgspec.json.Decoder(_Event)
_whole = msgspec.json.Decoder(_Whole)
_members = msgspec.json.Decoder(dict[str, Raw])


class TypedEventStream(StreamedResponse):
    """A streamed answer of Responses or Messages; `chunks` counts its events."""

    __slots__ = ("_api", "_finished")

    def __init__(self, answer: BackendResponse, model: str, api: EventApi) -> None:
        super().__init__(answer, model)
        self._api = api
        self._finished = False

    def _opens_answer(self, event: bytes) -> bool:
        """Tell whether an event before all content is the first content. Raises BackendError."""
        data = sse.extract_payload(event)
        if not data:
            return False
        parsed = self._decode(data)
        self._note_whole(parsed)
        return parsed.type not in self._api.openings

    async def relay_to_client(
        self, reply: ResponseWriter, lifeline: RequestCancellation, explain: Explain | None
    ) -> None:
        """Pass everything on to the end. Raises BackendError where the stream breaks."""
        try:
            await super().relay_to_client(reply, lifeline, explain)
        finally:
            reply.events = self.chunks

    def _end_body(self) -> bytes:
        """Return the last event where it did not come; or note what broke the stream."""
        if self._finished:
            # Some servers and proxies leave it out; what was asked for is there.
            return self._inspect_block(self._api.last)
        self._broken = InvalidResponse("the stream ended without its last event")
        return b""

    def _look(self, block: bytes) -> bytes:
        """Return what a client is to be sent of a block of whole events."""
        count = block.count(b"\n\n")
        self.chunks += count
        if (
            block.count(self._api.delta) == count
            and block.count(_OBJECT_END) == count
            and (block.isascii() or sse.is_text(block))
        ):
            self._lifeline.last = time.monotonic()
        else:
            block = self._inspect_block(block)
        return block if self._rename is None else self._rename(block)

    def _inspect_block(self, block: bytes) -> bytes:
        """Look at each event; what stands before an error is kept, the error is not."""
        kept = []
        try:
            for event in sse.split_events(block):
                data = sse.extract_payload(event)
                if not data:
                    kept.append(event)
                    continue
                self._lifeline.last = time.monotonic()
                parsed = self._decode(data)
                self._note_whole(parsed)
                if parsed.type == self._api.finish:
                    self._finished |= _says_why(parsed.delta)
                elif parsed.type in self._api.endings and self._api.finish and not self._finished:
                    raise InvalidResponse("the stream's last event before it said why")
                kept.append(self._finish(parsed, event, data))
                if parsed.type in self._api.endings:
                    self._done = True
                    break
        except BackendError as error:
            self._broken = error.with_traceback(None)
        return b"".join(kept)

    def _decode(self, data: bytes) -> _Event:
        """Decode an event. Raises InvalidResponse, or BackendStatusError where it is an error."""
        try:
            if not data.isascii():
                data.decode()
            parsed = _event.decode(data)
        except sse.UNREADABLE as error:
            raise InvalidResponse(f"an event that is not JSON as vLLM sends it: {error}") from None
        if parsed.type in self._api.failures or sse.is_error(parsed.error):
            inner = parsed.error
            if not sse.is_error(inner) and bytes(parsed.response):
                inner = _members.decode(parsed.response).get("error", sse.ABSENT)
            raise BackendStatusError(find_status(inner), data)
        if not parsed.type:
            raise InvalidResponse("an event without a type")
        return parsed

    def _note_whole(self, event: _Event) -> None:
        """Note what an event says of the whole answer."""
        if event.usage is not None:
            self.usage = event.usage.to_token_usage()
        raw: Raw = getattr(event, self._api.whole)
        if not bytes(raw):
            if event.type == _COMPLETED:
                raise InvalidResponse("the stream's last event without the answer")
            return
        try:
            whole = _whole.decode(raw)
        except sse.UNREADABLE as error:
            raise InvalidResponse(f"an answer that is not as vLLM sends it: {error}") from None
        if event.type == _COMPLETED and whole.status in GIVEN_UP_STATUS:
            raise InvalidResponse("it gave the answer up")
        if self._head.id is None:
            self._head.id, self._head.model = whole.id, whole.model
        if whole.usage is not None:
            self.usage = whole.usage.to_token_usage()

    def _finish(self, parsed: _Event, event: bytes, data: bytes) -> bytes:
        """Return an event with what the gateway adds: impact to usage, the decision at the end."""
        explain = self._explain if parsed.type in self._api.endings else None
        if explain is None and self.impact is None:
            return event
        if parsed.type not in self._api.endings and parsed.usage is None:
            return event
        if bytes(parsed.response):
            told = _members.decode(data)
            whole = add_usage_impact(bytes(told["response"]), self.usage, self.impact)
            if explain is not None:
                whole = add_explanation(whole, explain())
            data = msgspec.json.encode({**told, "response": Raw(whole)})
        else:
            data = add_usage_impact(data, self.usage, self.impact)
            if explain is not None:
                data = add_explanation(data, explain())
        return b"event: %s\ndata: %s\n\n" % (parsed.type.encode(), data)


def _says_why(delta: Raw) -> bool:
    """Tell whether an event says why the answer ends: of one that it aborted vLLM says nothing."""
    try:
        return isinstance(_delta.decode(delta).stop_reason, str)
    except sse.UNREADABLE:
        return False


_COMPLETED: Final = "response.completed"
_OBJECT_END: Final = b"}\n\n"
