"""One answer on its way from a backend to a client: a stream as it comes, or one JSON body.

Rules of a stream: it is opened only when its first content is there (until then another backend
may still serve); whole events are passed on as they arrive, waiting while the client is slow; the
usage chunk that only the gateway asked for is kept back; it ends with [DONE] or it is broken.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw, Struct

from backends.client import BackendResponse
from backends.errors import BackendError, BackendStatusError, InvalidResponse, ResponseTooLarge
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.client.response import ResponseWriter
from gateway.service.upstream import sse

Explain = Callable[[], bytes]
"""Makes the `joulegate` object's JSON; called at most once, at the end."""


class ModelRenamer:
    """Replaces the name a backend answers by with the client's, in raw bytes."""

    __slots__ = ("_new", "_old")

    def __init__(self, answered_as: str, model: str) -> None:
        self._new = b'"model":' + msgspec.json.encode(model)
        self._old = (
            b'"model":' + msgspec.json.encode(answered_as),
            b'"model": ' + msgspec.json.encode(answered_as),
        )

    def __call__(self, block: bytes) -> bytes:
        """Return `block` with every top-level `"model"` member renamed."""
        for old in self._old:
            if old in block:
                return block.replace(old, self._new)
        return block


@lru_cache(maxsize=256)
def find_renamer(answered_as: str | None, model: str) -> ModelRenamer | None:
    """Return the renaming that an answer needs, or None; there are few names."""
    return None if answered_as in {None, model} else ModelRenamer(str(answered_as), model)


class UnaryResponse(Struct):
    """The members of a unary answer that the gateway looks at."""

    model: str | None = None
    choices: Raw = sse.ABSENT
    data: Raw = sse.ABSENT
    usage: sse.TokenUsage | None = None
    metrics: Raw = sse.ABSENT
    error: Raw = sse.ABSENT


_whole = msgspec.json.Decoder(UnaryResponse)
_MAX_HEAD_BYTES = 1 << 20


def parse_unary(body: bytes) -> UnaryResponse:
    """Validate a unary answer. Raises BadAnswer, or Refused for an error sent with status 200."""
    try:
        parsed = _whole.decode(body)
    except sse.UNREADABLE as error:
        raise InvalidResponse(f"an answer that is not JSON as vLLM sends it: {error}") from None
    if sse.is_error(parsed.error):
        raise BackendStatusError(_status_of(parsed.error), body)
    if not bytes(parsed.choices) and not bytes(parsed.data):
        raise InvalidResponse("an answer without choices or data")
    return parsed


def add_explanation(body: bytes, explain: bytes) -> bytes:
    """Add the `joulegate` member at the end of a JSON object."""
    return body.rstrip()[:-1] + b',"joulegate":' + explain + b"}"


class StreamedResponse:
    """A streamed answer; `chunks` counts its events, `usage` is filled in as it passes.

    So are `timings`, as raw JSON, from a vLLM that runs with --enable-per-request-metrics.
    """

    __slots__ = (
        "_answer", "_broken", "_done", "_explain", "_head", "_model", "_opened", "_splitter",
        "_wants_usage", "chunks", "timings", "usage",
    )  # fmt: skip

    def __init__(self, answer: BackendResponse, model: str, *, wants_usage: bool) -> None:
        self._answer = answer
        self._model = model
        self._wants_usage = wants_usage
        self._splitter = sse.EventSplitter()
        self._head = sse.StreamChunk()
        self._opened = b""
        self._done = False
        self._broken: BackendError | None = None
        self._explain: Explain | None = None
        self.chunks = 0
        self.usage: sse.TokenUsage | None = None
        self.timings = sse.ABSENT

    async def read_to_first_content(self) -> None:
        """Read up to the first content. Raises BackendError: nothing has reached the client yet."""
        while True:
            chunk = await self._answer.read_chunk()
            if not chunk:
                raise InvalidResponse("the stream ended before any content")
            block = self._splitter.feed_chunk(chunk)
            self._opened += block
            for event in sse.split_events(block):
                data = sse.extract_payload(event)
                if data == sse.DONE:
                    return
                if not data:
                    continue
                parsed = sse.decode_chunk(data)
                if sse.is_error(parsed.error):
                    raise BackendStatusError(_status_of(parsed.error), data)
                if self._head.id is None:
                    self._head = parsed
                if sse.has_content(parsed):
                    return
            if len(self._opened) > _MAX_HEAD_BYTES:
                raise ResponseTooLarge("a megabyte of events without content")

    async def relay_to_client(
        self, reply: ResponseWriter, lifeline: RequestCancellation, explain: Explain | None
    ) -> None:
        """Pass everything on to the end. Raises BackendError where the stream breaks."""
        self._explain = explain
        block = self._opened
        self._opened = b""
        chunk_of = self._answer.read_chunk
        feed = self._splitter.feed_chunk
        write = reply.write
        rename = find_renamer(self._head.model, self._model)
        clock = time.monotonic
        while True:
            if block:
                self.chunks += block.count(b"\n\n")
                if rename is not None:
                    block = rename(block)
                if (
                    sse.USAGE in block
                    or sse.DONE in block
                    or sse.ERROR in block
                    or sse.USAGE_SPACED in block
                ):
                    block = self._inspect_block(block)
                if self._done:
                    await reply.end_response(block)
                    return
                if block:
                    await write(block)
                if self._broken is not None:
                    raise self._broken
            chunk = await chunk_of()
            lifeline.last = clock()
            if not chunk:
                raise InvalidResponse("the stream ended without its end marker")
            block = feed(chunk)

    async def release_connection(self) -> None:
        """Let the connection be used again."""
        await self._answer.finish_reading()

    def _inspect_block(self, block: bytes) -> bytes:
        """Look at each event of a block that may hold usage, an error or the end.

        What stands before an error is kept: it still goes to the client.
        """
        kept = []
        for event in sse.split_events(block):
            data = sse.extract_payload(event)
            if data == sse.DONE:
                if self._explain is not None:
                    kept.append(self._make_explanation(self._explain()))
                kept.append(sse.DONE_EVENT)
                self._done = True
                break
            if sse.USAGE in event or sse.USAGE_SPACED in event or data.startswith(b'{"error"'):
                try:
                    parsed = sse.decode_chunk(data)
                except InvalidResponse as error:
                    self._broken = error
                    break
                if sse.is_error(parsed.error):
                    self._broken = BackendStatusError(_status_of(parsed.error), data)
                    break
                self.usage = parsed.usage or self.usage
                self.timings = parsed.metrics
                if not parsed.choices and not self._wants_usage:
                    continue
            kept.append(event)
        return b"".join(kept)

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


class _ErrorCode(Struct):
    code: int | str | None = None


def _status_of(error: Raw) -> int:
    """Return the HTTP status an error object stands for; vLLM puts it into `code`."""
    try:
        code = msgspec.json.decode(error, type=_ErrorCode).code
    except sse.UNREADABLE:
        return 500
    return code if isinstance(code, int) and 400 <= code <= 599 else 500  # noqa: PLR2004
