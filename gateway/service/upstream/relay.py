"""One answer on its way from a backend to a client: a stream as it comes, or one JSON body.

Rules of a stream: it is opened only when its first content is there (until then another backend
may still serve); whole events are passed on as they arrive, waiting while the client is slow; it
ends as its API's streams end or it is broken. What its events say is read by the kinds of streams.
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct

from backends import sse
from backends.client import BackendResponse
from backends.errors import BackendError, BackendStatusError, InvalidResponse, ResponseTooLarge
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.client.response import PieceWriter, ResponseWriter
from gateway.service.upstream.usage_impact import UsageImpact

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
            renamed = block.replace(old, self._new)
            if renamed is not block:  # CPython's own where there is nothing to replace
                return renamed
        return block


@lru_cache(maxsize=256)
def find_renamer(answered_as: str | None, model: str) -> ModelRenamer | None:
    """Return the renaming that an answer needs, or None; there are few names."""
    return None if answered_as in {None, model} else ModelRenamer(str(answered_as), model)


class _UnaryChoice(Struct):
    finish_reason: str | None = None


class UnaryResponse(Struct):
    """The members of a unary answer that the gateway looks at."""

    id: Raw = sse.ABSENT
    model: str | None = None
    choices: list[_UnaryChoice] | None = None
    data: Raw = sse.ABSENT
    usage: sse.TokenUsage | None = None
    metrics: Raw = sse.ABSENT
    error: Raw = sse.ABSENT
    object: Any = None
    detail: Raw = sse.ABSENT

    @property
    def text_id(self) -> str:
        """The answer's id as it stands in the JSON, without quotes."""
        return bytes(self.id).strip(b'"').decode("ascii", "replace")


class _MayBeError(Protocol):
    @property
    def error(self) -> Raw: ...


_Answer = TypeVar("_Answer", bound=_MayBeError)
_whole = msgspec.json.Decoder(UnaryResponse)
_MAX_HEAD_BYTES = 1 << 20
NO_CONTENT = "the stream ended before any content"
_WHOLE_DATA = re.compile(rb"\[\s*[^\s\]]")
GIVEN_UP = frozenset({"abort", "error"})
"""What vLLM calls the end of an answer that it gave up, as no API that it speaks does."""


def decode_unary(body: bytes, decoder: "msgspec.json.Decoder[_Answer]") -> _Answer:
    """Decode a unary answer of any API.

    Raises InvalidResponse, or BackendStatusError for an error sent with status 200.
    """
    if not body.isascii() and not sse.is_text(body):
        raise InvalidResponse("an answer that is not UTF-8 text")
    try:
        parsed = decoder.decode(body)
    except sse.UNREADABLE as error:
        raise InvalidResponse(f"an answer that is not JSON as vLLM sends it: {error}") from None
    if sse.is_error(parsed.error):
        raise BackendStatusError(find_status(parsed.error), body)
    return parsed


def parse_unary(body: bytes) -> UnaryResponse:
    """Validate a unary answer; raises what `decode_unary` does."""
    parsed = decode_unary(body, _whole)
    if not parsed.choices and not _WHOLE_DATA.match(parsed.data):
        if parsed.object == "error" or sse.says_something(parsed.detail):
            raise BackendStatusError(find_status(Raw(body)), body)
        raise InvalidResponse("an answer without choices or data")
    for choice in parsed.choices or ():
        if choice.finish_reason in GIVEN_UP:
            raise InvalidResponse(f"it gave the answer up: {choice.finish_reason}")
    return parsed


def add_explanation(body: bytes, explain: bytes) -> bytes:
    """Add the `joulegate` member at the end of a JSON object."""
    return body.rstrip()[:-1] + b',"joulegate":' + explain + b"}"


class StreamedResponse(ABC):
    """A streamed answer; `chunks` counts its events, `usage` is filled in as it passes.

    So are `timings`, as raw JSON, from a vLLM that runs with --enable-per-request-metrics. Each
    kind of stream reads its own events: `_opens_answer`, `_look` and `_end_body`.
    """

    __slots__ = (
        "_answer", "_broken", "_done", "_explain", "_head", "_lifeline", "_model",
        "_opened", "_over", "_pieces", "_rename", "_splitter",
        "chunks", "impact", "timings", "usage",
    )  # fmt: skip

    def __init__(self, answer: BackendResponse, model: str) -> None:
        self._answer = answer
        self._model = model
        self._splitter = sse.EventSplitter()
        self._head = sse.StreamChunk()
        self._opened = b""
        self._done = False
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
        found = self._head.id
        return found if isinstance(found, str) else None

    async def read_to_first_content(self) -> None:
        """Read up to the first content. Raises BackendError: nothing has reached the client yet."""
        while True:
            chunk = await self._answer.read_chunk()
            if not chunk:
                raise InvalidResponse(NO_CONTENT)
            block = self._splitter.feed_chunk(chunk)
            if not self._opened:
                block = block.removeprefix(sse.BYTE_ORDER_MARK)
            self._opened += block
            if any(map(self._opens_answer, sse.split_events(block))):
                return
            if len(self._opened) > _MAX_HEAD_BYTES:
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
                if chunk and answer.goes_on:
                    return  # all that is here has been taken
        except BackendError as error:
            self._broken = error.with_traceback(None)
            over.set_result(b"")
        except Exception as error:  # noqa: BLE001 - a bug must cost one request, not a connection
            over.set_exception(error)

    def _take_in(self, chunk: bytes) -> bytes:
        """Return what a client is to be sent of a chunk; b"" is the end of the body.

        Raises BackendError, or notes it as what broke the stream.
        """
        if chunk:
            block = self._splitter.feed_chunk(chunk)
            return self._look(block) if block else b""
        # The last event may lack its blank line.
        rest = self._splitter.feed_chunk(b"\n\n").strip(b"\n")
        out = self._look(rest + b"\n\n") if rest else b""
        if self._done or self._broken is not None:
            return out
        return out + self._end_body()

    @abstractmethod
    def _opens_answer(self, event: bytes) -> bool:
        """Tell whether an event before all content is the first content. Raises BackendError."""

    @abstractmethod
    def _look(self, block: bytes) -> bytes:
        """Return what a client is to be sent of a block of whole events."""

    @abstractmethod
    def _end_body(self) -> bytes:
        """Return the last of it where the body is over and no event said so; or note the break."""

    def release_connection(self) -> None:
        """Let the connection be used again."""
        self._answer.finish_reading()


class _ErrorCode(Struct):
    code: int | str | None = None


def find_status(error: Raw) -> int:
    """Return the HTTP status an error object stands for; vLLM puts it into `code`."""
    try:
        code = msgspec.json.decode(error, type=_ErrorCode).code
    except sse.UNREADABLE:
        return 500
    return code if isinstance(code, int) and 400 <= code <= 599 else 500  # noqa: PLR2004
