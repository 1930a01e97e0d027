"""The client: plain HTTP/1.1 over uvloop, so that its own cost stays small and the same for all."""

import asyncio
import gc
import random
import time
from array import array
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import uvloop

from tests.bench.wire import CONTENT, END, LENGTH, request

_Result = TypeVar("_Result")
_OK = b"HTTP/1.1 200 "
_DIAL_AT_ONCE = 50
_PACED_CONNECTIONS = 20


class Sample:
    """What one measurement saw; times in seconds. Nothing is kept while it is not `open`."""

    def __init__(self) -> None:
        self.open = False
        self.stopping = False
        self.latencies = array("d")
        self.firsts = array("d")
        self.gaps = array("d")
        self.tokens = 0
        self.whole = 0
        self.broken = 0
        self.seconds = 0.0


class _Unary(asyncio.Protocol):
    """Sends a request, waits for the whole answer, sends the next."""

    __slots__ = ("_began", "_buffer", "_missing", "_request", "_sample", "_transport")

    def __init__(self, sample: Sample, port: int) -> None:
        self._sample = sample
        self._request = request(port)
        self._buffer = b""
        self._missing = 0
        self._began = 0.0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._sample.stopping:
            self._sample.broken += 1

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            data = self._buffer + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            self._buffer = b""
            found = LENGTH.search(data, 0, end + 2)
            if found is None or not data.startswith(_OK):
                self._sample.broken += 1
                self._transport.abort()
                return
            self._missing = end + 4 + int(found[1]) - len(data)
        if self._missing:
            return
        sample = self._sample
        if sample.open:
            sample.latencies.append(time.perf_counter() - self._began)
            sample.whole += 1
        if not sample.stopping:
            self._send()


class _Paced(_Unary):
    """The same at fixed times, each connection with its own."""

    __slots__ = ("_every", "_next")

    def __init__(self, sample: Sample, port: int, every: float, delay: float) -> None:
        super().__init__(sample, port)
        self._every = every
        self._next = asyncio.get_running_loop().time() + delay

    def _send(self) -> None:
        loop = asyncio.get_running_loop()
        self._next = max(self._next + self._every, loop.time())
        loop.call_at(self._next, self._due)

    def _due(self) -> None:
        if not self._sample.stopping:
            super()._send()


class _Stream(asyncio.Protocol):
    """Sends a streaming request, times each piece of the answer, sends the next."""

    __slots__ = (
        "_began", "_delay", "_done", "_first", "_last", "_request", "_rest", "_sample", "_seen",
        "_tokens", "_transport",
    )  # fmt: skip

    def __init__(self, sample: Sample, port: int, tokens: int, delay: float) -> None:
        self._sample = sample
        self._request = request(port, stream_tokens=tokens)
        self._tokens = tokens
        self._delay = delay
        self._transport: Any = None
        self._rest = b""
        self._reset()

    def _reset(self) -> None:
        self._began = self._last = 0.0
        self._first = True
        self._done = False
        self._seen = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        asyncio.get_running_loop().call_later(self._delay, self._send)

    def connection_lost(self, _: Exception | None) -> None:
        if not self._sample.stopping:
            self._sample.broken += 1

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not data.endswith(b"\r\n"):
            # An event in two pieces: it is there when its end is.
            self._rest = data
            return
        sample = self._sample
        if self._seen == 0 and not self._done and data.startswith(b"HTTP/") and data[:13] != _OK:
            self._transport.abort()
            return
        found = data.count(CONTENT)
        if found:
            self._seen += found
            if sample.open:
                sample.tokens += found
                if self._first:
                    sample.firsts.append(now - self._began)
                else:
                    sample.gaps.append(now - self._last)
            self._first = False
            self._last = now
        self._done = self._done or b"[DONE]" in data
        if self._done and data.endswith(END):
            if self._seen == self._tokens:
                sample.whole += sample.open
            else:
                sample.broken += 1
            self._reset()
            if not sample.stopping:
                self._send()


def unary(
    port: int, connections: int, seconds: float, warm: float, meter: AbstractContextManager[Any]
) -> Sample:
    """Ask for whole answers on so many connections, each one request at a time.

    `meter` is entered and left around what is measured, warm-up left out.
    """

    async def run() -> Sample:
        sample = Sample()

        def made() -> _Unary:
            return _Unary(sample, port)

        return await _measure(sample, made, port, connections, seconds, warm, meter)

    return _run(run())


def paced(
    port: int, per_second: float, seconds: float, warm: float, meter: AbstractContextManager[Any]
) -> Sample:
    """Ask for so many whole answers a second, spread evenly, as long as answers keep up."""

    async def run() -> Sample:
        sample = Sample()
        every = _PACED_CONNECTIONS / per_second
        delays = iter([n / per_second for n in range(_PACED_CONNECTIONS)])

        def made() -> _Paced:
            return _Paced(sample, port, every, next(delays))

        return await _measure(sample, made, port, _PACED_CONNECTIONS, seconds, warm, meter)

    return _run(run())


def streams(
    port: int,
    count: int,
    tokens: int,
    interval: float,
    seconds: float,
    meter: AbstractContextManager[Any],
) -> Sample:
    """Keep so many streams going; measured once each has had time to begin, spread evenly."""

    async def run() -> Sample:
        sample = Sample()
        rng = random.Random(count)
        length = tokens * interval

        def made() -> _Stream:
            return _Stream(sample, port, tokens, rng.uniform(0.0, length))

        return await _measure(sample, made, port, count, seconds, length + 0.5, meter)

    return _run(run())


async def _measure(
    sample: Sample,
    made: Callable[[], asyncio.Protocol],
    port: int,
    connections: int,
    seconds: float,
    warm: float,
    meter: AbstractContextManager[Any],
) -> Sample:
    loop = asyncio.get_running_loop()
    transports = []
    for start in range(0, connections, _DIAL_AT_ONCE):
        some = range(start, min(start + _DIAL_AT_ONCE, connections))
        dialled = (loop.create_connection(made, "127.0.0.1", port) for _ in some)
        transports += [transport for transport, _ in await asyncio.gather(*dialled)]
    await asyncio.sleep(warm)
    with meter:
        began = time.perf_counter()
        sample.open = True
        await asyncio.sleep(seconds)
        sample.open = False
        sample.seconds = time.perf_counter() - began
    sample.stopping = True
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0.05)
    return sample


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    gc.collect()
    gc.disable()
    try:
        return uvloop.run(work)
    finally:
        gc.enable()
