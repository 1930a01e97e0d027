"""One answer on its way from a backend to a client: a stream as it comes, or one JSON body.

Rules of a stream: it is opened only when its first content is there (until then another backend
may still serve); whole events are passed on as they arrive, waiting while the client is slow; the
usage chunk that only the gateway asked for is kept back, unless it is to tell the impact; it ends
with [DONE] or it is broken.
"""

import asyncio
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw, Struct

from backends import sse
from backends.client import BackendResponse
from backends.errors import BackendError, BackendStatusError, InvalidResponse, ResponseTooLarge
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.client.response import PieceWriter, ResponseWriter
from gateway.service.upstream.usage_impact import UsageImpact, add_usage_impact

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

    id: Raw = sse.ABSENT
    model: str | None = None
    choices: Raw = sse.ABSENT
    data: Raw = sse.ABSENT
    usage: sse.TokenUsage | None = None
    metrics: Raw = sse.ABSENT
    error: Raw = sse.ABSENT

    @property
    def text_id(self) -> str:
        """The answer's id as it stands in the JSON, without quotes."""
        return bytes(self.id).strip(b'"').decode("ascii", "replace")


_whole = msgspec.json.Decoder(UnaryResponse)
MAX_HEAD_BYTES = 1 << 20


def parse_unary(body: bytes) -> UnaryResponse:
    """Validate a unary answer.

    Raises InvalidResponse, or BackendStatusError for an error sent with status 200.
    """
    if not body.isascii() and not sse.is_text(body):
        raise InvalidResponse("an answer that is not UTF-8 text")
    try:
        parsed = _whole.decode(body)
    except sse.UNREADABLE as error:
        raise InvalidResponse(f"an answer that is not JSON as vLLM sends it: {error}") from None
    if sse.is_error(parsed.error):
        raise BackendStatusError(find_status(parsed.error), body)
    if not bytes(parsed.choices) and not bytes(parsed.data):
        raise InvalidResponse("an answer without choices or data")
    return parsed


def add_explanation(body: bytes, explain: bytes) -> bytes:
    """Add the `joulegate` member at the end of a JSON object."""
    return body.rstrip()[:-1] + b',"joulegate":' + explain + b"}"


class StreamedResponse:
    """A streamed answer; `chunks` counts its events, `usage` is filled in as it passes.

    So are `timings`, as raw JSON, from a vLLM that runs with --enable-per-request-metrics.
    With `single` one choice is expected: once it has finished, the answer is whole.
    """

    __slots__ = (
        "_answer", "_broken", "_done", "_explain", "_finished", "_head", "_lifeline", "_model",
        "_opened", "_over", "_pieces", "_rename", "_single", "_splitter", "_wants_usage",
        "chunks", "impact", "timings", "usage",
    )  # fmt: skip

    def __init__(
        self, answer: BackendResponse, model: str, *, wants_usage: bool, single: bool = True
    ) -> None:
        self._answer = answer
        self._model = model
        self._wants_usage = wants_usage
        self._single = single
        self._splitter = sse.EventSplitter()
        self._head = sse.StreamChunk()
        self._opened = b""
        self._done = False
        self._finished = False
        self._broken: BackendError | None = None
        self._explain: Explain | None = None
        self._rename: ModelRenamer | None = None
        self._lifeline: RequestCancellation
        self._pieces: PieceWriter
        self._over: asyncio.Future[bytes]
        self.chunks = 0
        self.impact: UsageImpact | None = None
        self.usage: sse.TokenUsage | None = None
        self.timings = sse.ABSENT

    @property
    def id(self) -> str | None:
        """The answer's id, once it is opened."""
        return self._head.id

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
                    raise InvalidResponse("the stream ended before any content")
                if not data:
                    continue
                parsed = sse.decode_chunk(data)
                if sse.is_error(parsed.error):
                    raise BackendStatusError(find_status(parsed.error), data)
                if self._head.id is None:
                    self._head = parsed
                if sse.has_content(parsed):
                    return
            if len(self._opened) > MAX_HEAD_BYTES:
                raise ResponseTooLarge("a megabyte of events without content")

    async def relay_to_client(
        self, reply: ResponseWriter, lifeline: RequestCancellation, explain: Explain | None
    ) -> None:
        """Pass everything on to the end. Raises BackendError where the stream breaks."""
        self._explain = explain
        self._lifeline = lifeline
        self._rename = find_renamer(self._head.model, self._model)
        block, self._opened = self._opened, b""
        out = self._look(block)
        while not self._done and self._broken is None:
            if out:
                await reply.write(out)
            if reply.pieces is not None:
                out = await self._pump(reply.pieces)
            else:
                out = self._take_in(await self._answer.read_chunk())
        if self._done:
            await reply.end_response(out)
            return
        if out:
            await reply.write(out)
        raise self._take_broken()

    def _take_broken(self) -> BackendError:
        """Return what broke the stream; kept here, it would hold the frame that raises it."""
        broken, self._broken = self._broken, None
        return broken or InvalidResponse("the stream broke")

    async def _pump(self, pieces: PieceWriter) -> bytes:
        """Pass everything on as it comes, without a task's turn for each piece; return the last."""
        self._pieces = pieces
        self._over = asyncio.get_running_loop().create_future()
        pieces.on_drained = self._answer.resume
        self._answer.listen(self._pass_on)
        try:
            self._pass_on()
            return await self._over
        finally:
            pieces.on_drained = None
            self._answer.stop_listening()

    def _pass_on(self) -> None:
        """Pass on what has come; called by the backend's connection."""
        answer, over = self._answer, self._over
        try:
            while not over.done():
                chunk = answer.take()
                if not chunk and not answer.over:
                    return
                out = self._take_in(chunk)
                if self._done or self._broken is not None:
                    over.set_result(out)
                elif out:
                    self._pieces.write(out)
                    if self._pieces.blocked:
                        answer.pause()
        except BackendError as error:
            self._broken = error.with_traceback(None)
            over.set_result(b"")
        except Exception as error:  # noqa: BLE001 - a bug must cost one request, not a connection
            over.set_exception(error)

    def _take_in(self, chunk: bytes) -> bytes:
        """Return what a client is to be sent of a chunk; b"" is the end of the body."""
        if chunk:
            block = self._splitter.feed_chunk(chunk)
            return self._look(block) if block else b""
        if not (self._finished and self._single):
            raise InvalidResponse("the stream ended without its end marker")
        # Some servers and proxies leave it out; what was asked for is there.
        return self._end()

    def _look(self, block: bytes) -> bytes:
        """Return what a client is to be sent of a block of whole events."""
        count = block.count(b"\n\n")
        self.chunks += count
        if sse.are_plain(block, count):
            self._lifeline.last = time.monotonic()
        else:
            block = self._inspect_block(block)
        return block if self._rename is None else self._rename(block)

    def _inspect_block(self, block: bytes) -> bytes:
        """Look at each event of a block that may hold usage, an error or the end.

        What stands before an error is kept: it still goes to the client. Comments are passed on,
        and are no sign of life.
        """
        kept = []
        try:
            for event in sse.split_events(block):
                data = sse.extract_payload(event)
                if data == sse.DONE:
                    if not self._finished:
                        raise InvalidResponse("the stream's end marker before a finish_reason")
                    kept.append(self._end())
                    break
                if not data:
                    kept.append(event)
                    continue
                self._lifeline.last = time.monotonic()
                parsed = sse.decode_chunk(data)
                if sse.is_error(parsed.error):
                    raise BackendStatusError(find_status(parsed.error), data)
                self._note(parsed)
                if parsed.usage is None or parsed.choices:
                    kept.append(event)
                elif self.impact is not None:
                    told = add_usage_impact(data, parsed.usage, self.impact)
                    kept.append(b"data: " + told + b"\n\n")
                elif self._wants_usage:
                    kept.append(event)
        except BackendError as error:
            self._broken = error.with_traceback(None)
        return b"".join(kept)

    def _note(self, event: sse.StreamChunk) -> None:
        """Note what an event says of the whole answer."""
        for choice in event.choices or ():
            self._finished = self._finished or choice.finish_reason is not None
        if event.usage is not None:
            self.usage = event.usage
            self.timings = event.metrics

    def _end(self) -> bytes:
        """Return a stream's last events."""
        self._done = True
        explanation = b"" if self._explain is None else self._make_explanation(self._explain())
        return explanation + sse.DONE_EVENT

    def release_connection(self) -> None:
        """Let the connection be used again."""
        self._answer.finish_reading()

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


def find_status(error: Raw) -> int:
    """Return the HTTP status an error object stands for; vLLM puts it into `code`."""
    try:
        code = msgspec.json.decode(error, type=_ErrorCode).code
    except sse.UNREADABLE:
        return 500
    return code if isinstance(code, int) and 400 <= code <= 599 else 500  # noqa: PLR2004
