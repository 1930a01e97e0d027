"""A streamed answer, timed: first token, end, usage, and what a simulator adds."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from backends.client import BackendResponse
from backends.errors import BackendTimeout, ConnectionLost, InvalidResponse
from backends.sse import (
    ABSENT,
    DONE,
    UNREADABLE,
    ChunkChoice,
    EventSplitter,
    StreamChunk,
    extract_payload,
    is_error,
    split_events,
)

_STALL_TIMEOUT_SECONDS: Final = 300.0


class _StreamMetrics(Struct):
    time_to_first_token_ms: float | None = None


class SimulatedRequestCost(Struct, frozen=True):
    """A simulator's true cost of one request, in simulated seconds and joules."""

    energy_joules: float
    seconds: float
    speed: float = 1.0


class _TimedChunk(StreamChunk):
    simulated: SimulatedRequestCost | None = None


_chunk_decoder: Final = msgspec.json.Decoder(_TimedChunk)
_metrics_decoder: Final = msgspec.json.Decoder(_StreamMetrics | None)
_NOTHING: Final = (b"", b"null", b'""')


@dataclass(frozen=True, slots=True)
class TimedResponse:
    """One answered request; `began` and `ended` are `time.perf_counter` seconds.

    `seconds` and `ttft_seconds` are simulated ones where the server is a simulator.
    """

    request_id: str
    began: float
    ended: float
    seconds: float
    ttft_seconds: float | None
    tokens_in: int
    tokens_out: int
    cached_tokens: int | None
    simulated: SimulatedRequestCost | None


async def read_stream(
    answer: BackendResponse, request_id: str, began: float, on_tokens: Callable[[int], None]
) -> TimedResponse:
    """Read a stream to its end; `on_tokens` gets counts of new tokens. Raises BackendError."""
    first: float | None = None
    last = _TimedChunk()
    tokens = 0
    splitter = EventSplitter()
    while True:
        try:
            async with asyncio.timeout(_STALL_TIMEOUT_SECONDS):
                piece = await answer.read_chunk()
        except TimeoutError:
            raise BackendTimeout(f"nothing came for {_STALL_TIMEOUT_SECONDS:g} s") from None
        if not piece:
            raise ConnectionLost("the stream ended without [DONE]")
        now = time.perf_counter()
        for event in split_events(splitter.feed_chunk(piece)):
            data = extract_payload(event)
            if not data:
                continue
            if data == DONE:
                return _build_timed_response(last, request_id, began, now, first)
            last = _decode_chunk(data)
            if any(_brings_token(choice) for choice in last.choices or ()):
                first = now if first is None else first
                seen = (last.usage.completion_tokens or 0) if last.usage else tokens + 1
                on_tokens(max(0, seen - tokens))
                tokens = max(seen, tokens)


def _decode_chunk(data: bytes) -> _TimedChunk:
    try:
        chunk = _chunk_decoder.decode(data)
    except UNREADABLE as error:
        raise InvalidResponse(f"not an event of OpenAI's: {error}") from None
    if is_error(chunk.error):
        said = bytes(chunk.error).decode(errors="replace")
        raise InvalidResponse(f"the server broke off: {said}")
    return chunk


def _brings_token(choice: ChunkChoice) -> bool:
    """Whether a token came; one without text of its own counts, the role that opens does not."""
    if choice.delta is None:
        return True
    role, content = (bytes(choice.delta.get(name, ABSENT)) for name in ("role", "content"))
    return content not in _NOTHING or role in _NOTHING


def _build_timed_response(
    last: _TimedChunk, request_id: str, began: float, ended: float, first: float | None
) -> TimedResponse:
    """Make the reply of a stream whose last chunk carries its usage."""
    usage, simulated = last.usage, last.simulated
    if usage is None or not usage.completion_tokens:
        raise InvalidResponse("the stream's last chunk has no usage")
    seconds = ended - began
    ttft = None if first is None else first - began
    if simulated is not None:
        # A simulator's clock is its own: at 100 times the speed ours would time the sockets.
        seconds = simulated.seconds
        told = _read_ttft_ms(last)
        ttft = None if told is None else told / 1000.0 * simulated.speed
    return TimedResponse(
        request_id=request_id,
        began=began,
        ended=ended,
        seconds=seconds,
        ttft_seconds=ttft,
        tokens_in=usage.prompt_tokens,
        tokens_out=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        simulated=simulated,
    )


def _read_ttft_ms(last: _TimedChunk) -> float | None:
    if not bytes(last.metrics):
        return None
    try:
        metrics = _metrics_decoder.decode(last.metrics)
    except UNREADABLE as error:
        raise InvalidResponse(f"metrics that are none: {error}") from None
    return metrics.time_to_first_token_ms if metrics else None
