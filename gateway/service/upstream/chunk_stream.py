"""A stream of chunks on its way to a client: chat's and completions'.

Rules, beside those of every stream: each event is decoded, so that none that is not JSON, says
that something failed, or tells of an answer given up reaches the client as if nothing were wrong;
only chunks with choices or usage are signs of life, and what is no chunk is left out. The usage
chunk that only the gateway asked for is kept back, unless it is to tell the impact or vLLM forces
usage on everybody; what else it says goes on the chunk before. An answer is whole once all of its
choices have finished.
"""

import time
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from backends import sse
from backends.client import BackendResponse
from backends.errors import BackendError, BackendStatusError, InvalidResponse
from gateway.service.upstream.relay import (
    GIVEN_UP,
    NO_CONTENT,
    StreamedResponse,
    find_renamer,
    find_status,
)
from gateway.service.upstream.usage_impact import add_usage_impact

_PLAIN_START: Final = b"data: {"
_END: Final = b"}\n\n"


class ChunkStream(StreamedResponse):
    """A streamed answer; `choices` are expected in it, 0 where it is not known how many."""

    __slots__ = ("_choices", "_finished", "_forced", "_held", "_seen", "_wants_usage")

    def __init__(
        self, answer: BackendResponse, model: str, *, wants_usage: bool, choices: int = 1
    ) -> None:
        super().__init__(answer, model)
        self._wants_usage = wants_usage
        self._choices = choices
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._forced = False
        self._held = b""

    def _opens_answer(self, event: bytes) -> bool:
        """Tell whether an event before all content is the first content. Raises BackendError."""
        data = sse.extract_payload(event)
        if data == sse.DONE:
            raise InvalidResponse(NO_CONTENT)
        parsed = _decode_event(event, data)
        if parsed is None:
            return False
        self._note_head(parsed)
        return sse.has_content(parsed)

    def _note_head(self, parsed: sse.StreamChunk) -> None:
        """Note what the first chunk that has it says of the whole answer."""
        for name in ("id", "object", "created"):
            if not getattr(self._head, name):
                setattr(self._head, name, getattr(parsed, name))

    def _end_body(self) -> bytes:
        """Return the last events where no end marker came; or note what broke the stream."""
        if self._choices and len(self._finished) >= self._choices and self._is_finished:
            # Some servers and proxies leave it out; what was asked for is there.
            return self._end()
        self._broken = InvalidResponse("the stream ended without its end marker")
        return self._release()

    @property
    def _is_finished(self) -> bool:
        """Whether each choice that was seen has finished, and one was."""
        return bool(self._finished) and self._seen <= self._finished

    def _look(self, block: bytes) -> bytes:
        """Return what a client is to be sent of a block of whole events."""
        if block.startswith(_PLAIN_START) and block.find(b"\n") == len(block) - 2:
            self.chunks += 1
            if self._passes_as_it_is(block):
                self._lifeline.last = time.monotonic()
                return block if self._rename is None else self._rename(block)
            events = [block]
        else:
            self.chunks += block.count(b"\n\n")
            events = sse.split_events(block)
        kept = []
        try:
            for event in events:
                kept.append(self._pass_event(event))
                if self._done:
                    break
        except BackendError as error:
            self._broken = error.with_traceback(None)
            kept.append(self._release())
        out = kept[0] if len(kept) == 1 else b"".join(kept)
        return out if self._rename is None else self._rename(out)

    def _passes_as_it_is(self, event: bytes) -> bool:
        """Tell whether an event is a further token, of a choice that was seen before."""
        return (
            sse.find_token_index(event[6:-2]) in self._seen
            and bool(self._head.model)
            and not self._held
        )

    def _pass_event(self, event: bytes) -> bytes:
        """Return what a client is to be sent of an event. Raises BackendError."""
        if event.startswith(_PLAIN_START) and event.find(b"\n") == len(event) - 2:
            parsed = _check_chunk(sse.decode_chunk(event[6:-2]), event)
        else:
            data = sse.extract_payload(event)
            if data == sse.DONE:
                if not self._is_finished:
                    raise InvalidResponse("the stream's end marker before a finish_reason")
                return self._end()
            found = _decode_event(event, data)
            if found is None:
                # An SDK would take any other event without data for a broken one.
                return event if event.startswith(b":") else b""
            parsed = found
            if b"\n" in data:
                # Not every client joins several lines, and a name may stand across two.
                event = b"data: " + data.replace(b"\n", b"") + b"\n\n"
        if parsed.model and not self._head.model:
            self._head.model = parsed.model
            self._rename = find_renamer(parsed.model, self._model)
        return self._pass_chunk(parsed, event)

    def _pass_chunk(self, parsed: sse.StreamChunk, event: bytes) -> bytes:
        """Return what a client is to be sent of a chunk, with what was held back before it."""
        usage, choices = parsed.usage, parsed.choices
        if usage is not None:
            self._lifeline.last = time.monotonic()
            self.usage, self.timings = usage, parsed.metrics
            if not choices:
                return self._pass_usage(parsed, event)
            self._forced = self._forced or not self._wants_usage
        if choices is UNSET:
            return b""  # some proxy's ping: no chunk, and an SDK would fail at it
        if not choices:
            return self._release() + event
        self._lifeline.last = time.monotonic()
        before = self._release() if self._held else b""
        ends = False
        for choice in choices:
            self._seen.add(choice.index or 0)
            if choice.finish_reason:
                ends = True
                self._finished.add(choice.index or 0)
        if ends and self._loses_usage and len(self._finished) >= self._choices > 0:
            self._held = event
            return before
        return before + event if before else event

    @property
    def _loses_usage(self) -> bool:
        """Whether the usage chunk is to be kept from the client."""
        return not (self._wants_usage or self._forced or self.impact is not None)

    def _pass_usage(self, parsed: sse.StreamChunk, event: bytes) -> bytes:
        """Return what a client is to be sent for the usage chunk, the last one of an answer."""
        if self._loses_usage:
            return self._release(parsed.system_fingerprint)
        if self.impact is not None:
            told = add_usage_impact(sse.extract_payload(event), parsed.usage, self.impact)
            event = b"data: " + told + b"\n\n"
        return self._release() + event

    def _release(self, fingerprint: Raw = sse.ABSENT) -> bytes:
        """Return the finished choice's chunk that was held back, with vLLM's fingerprint, once."""
        held, self._held = self._held, b""
        if held and self._rename is not None:
            held = self._rename(held)
        if (
            held.endswith(_END)
            and sse.says_something(fingerprint)
            and sse.FINGERPRINT not in held  # some servers put it on both
        ):
            return held[: -len(_END)] + b',"system_fingerprint":' + bytes(fingerprint) + _END
        return held

    def _end(self) -> bytes:
        """Return a stream's last events."""
        self._done = True
        explanation = b"" if self._explain is None else self._make_explanation(self._explain())
        return self._release() + explanation + sse.DONE_EVENT

    def _make_explanation(self, explain: bytes) -> bytes:
        """Return a chunk without choices that carries the `joulegate` object."""
        head: dict[str, Any] = {
            "id": self._head.id,
            "object": self._head.object,
            "created": self._head.created,
            "model": self._model,
            "choices": [],
            "joulegate": Raw(explain),
        }
        return b"data: " + msgspec.json.encode(head) + b"\n\n"


def _decode_event(event: bytes, data: bytes) -> sse.StreamChunk | None:
    """Decode an event that is not plain; None where it has no data. Raises BackendError."""
    kind = b""
    for line in event.split(b"\n"):
        if line.startswith((b"{", b"<")):
            raise InvalidResponse(f"{line[:80]!r} where an event was due")
        if line.startswith(b"event:"):
            kind = line[6:].strip()
    if kind == b"error":
        raise BackendStatusError(find_status(Raw(data)), data)
    if not data:
        if not event.isascii() and not sse.is_text(event):
            raise InvalidResponse("an event that is not UTF-8 text")
        return None
    return _check_chunk(sse.decode_chunk(data), data)


def _check_chunk(parsed: sse.StreamChunk, data: bytes) -> sse.StreamChunk:
    """Return a chunk that is one. Raises BackendStatusError for an error, and InvalidResponse."""
    if sse.is_error(parsed.error):
        raise BackendStatusError(find_status(parsed.error), data)
    choices = parsed.choices
    if not choices:
        if parsed.object == "error" or parsed.type == "error" or sse.says_something(parsed.detail):
            raise BackendStatusError(find_status(Raw(data)), data)
        if choices is not UNSET and choices is None:
            raise InvalidResponse("a chunk whose choices are null")
        return parsed
    for choice in choices:
        if choice.finish_reason in GIVEN_UP:
            raise InvalidResponse(f"it gave the answer up: {choice.finish_reason}")
    return parsed
