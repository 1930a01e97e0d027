"""A streamed answer, timed: first token, end, usage, and what a simulator adds."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Struct

from backends.client import BackendResponse
from backends.errors import BackendTimeout, ConnectionLost, InvalidResponse

_STALL_TIMEOUT_SECONDS: Final = 300.0


class _PromptTokensDetails(Struct):
    cached_tokens: int | None = None


class _StreamUsage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptTokensDetails | None = None


class _StreamMetrics(Struct):
    time_to_first_token_ms: float | None = None


class SimulatedRequestCost(Struct, frozen=True):
    """What a simulator says of one request: its truth, in simulated seconds and joules."""

    energy_joules: float
    seconds: float
    speed: float = 1.0


class _MessageDelta(Struct):
    role: str | None = None
    content: str | None = None


class _StreamChoice(Struct):
    delta: _MessageDelta | None = None


class _StreamChunk(Struct):
    choices: list[_StreamChoice] = []
    usage: _StreamUsage | None = None
    metrics: _StreamMetrics | None = None
    simulated: SimulatedRequestCost | None = None
    error: Any = None


_chunk_decoder: Final = msgspec.json.Decoder(_StreamChunk)


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
    """Read a stream to its end; `on_tokens` hears of new tokens. Raises BackendError."""
    first: float | None = None
    last = _StreamChunk()
    tokens = 0
    rest = b""
    while True:
        try:
            async with asyncio.timeout(_STALL_TIMEOUT_SECONDS):
                piece = await answer.read_chunk()
        except TimeoutError:
            raise BackendTimeout(f"nothing came for {_STALL_TIMEOUT_SECONDS:g} s") from None
        if not piece:
            raise ConnectionLost("the stream ended without [DONE]")
        now = time.perf_counter()
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return _build_timed_response(last, request_id, began, now, first)
            try:
                chunk = _chunk_decoder.decode(data)
            except msgspec.MsgspecError as error:
                raise InvalidResponse(f"not an event of OpenAI's: {error}") from None
            if chunk.error is not None:
                raise InvalidResponse(f"the server broke off: {chunk.error}")
            if any(c.delta is None or c.delta.content or not c.delta.role for c in chunk.choices):
                first = now if first is None else first
                seen = chunk.usage.completion_tokens if chunk.usage else tokens + 1
                on_tokens(max(0, seen - tokens))
                tokens = max(seen, tokens)
            last = chunk


def _build_timed_response(
    last: _StreamChunk, request_id: str, began: float, ended: float, first: float | None
) -> TimedResponse:
    """Make the reply of a stream whose last chunk carries its usage."""
    usage, simulated = last.usage, last.simulated
    if usage is None or usage.completion_tokens < 1:
        raise InvalidResponse("the stream's last chunk has no usage")
    seconds = ended - began
    ttft = None if first is None else first - began
    if simulated is not None:
        # A simulator's clock is its own: at 100 times the speed ours would time the sockets.
        seconds = simulated.seconds
        told = last.metrics.time_to_first_token_ms if last.metrics else None
        ttft = None if told is None else told / 1000.0 * simulated.speed
    details = usage.prompt_tokens_details
    return TimedResponse(
        request_id=request_id,
        began=began,
        ended=ended,
        seconds=seconds,
        ttft_seconds=ttft,
        tokens_in=usage.prompt_tokens,
        tokens_out=usage.completion_tokens,
        cached_tokens=details.cached_tokens if details else None,
        simulated=simulated,
    )
