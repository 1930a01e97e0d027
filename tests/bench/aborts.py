"""`python -m tests.bench aborts`: how soon a backend learns that a client has left.

Each request's client leaves while the backend works on it: half of them before anything of a whole
answer has come, half in the middle of a stream. A figure is the time from the client's close to
the backend's connection being closed; both ends are in this process, so that one clock times both.
Exits 1 where a backend never learnt of one.
"""

import argparse
import asyncio
import os
import re
import time
from typing import Any, Final

import uvloop

from tests.bench import machine, serving
from tests.bench.report import number, say, share_of
from tests.bench.wire import CONTENT, Streamed, request

_AT_ONCE: Final = 20
_PATIENCE_SECONDS: Final = 10.0
_SOON_SECONDS: Final = 0.1
_ID: Final = re.compile(rb"x-request-id: *([a-z]+\d+)-", re.IGNORECASE)
_STREAMED: Final = Streamed("microsoft/Phi-3-mini-4k-instruct")


class _Backend(asyncio.Protocol):
    """Begins what it is asked for and never ends it."""

    def __init__(self, bench: "AbortBench") -> None:
        self._bench = bench
        self._id: str | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET"):
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            return
        found = _ID.search(data)
        if found is None:
            return
        self._id = found[1].decode()
        if b'"stream":true' in data:
            self._transport.write(_STREAMED.head + _STREAMED.token)
        self._bench.begun[self._id].set()

    def connection_lost(self, _: Exception | None) -> None:
        if self._id in self._bench.left:
            self._bench.learnt[self._id].set_result(time.perf_counter())


class AbortBench:
    """One run: `seconds` are the times that backends took to learn of it."""

    def __init__(self) -> None:
        self.begun: dict[str, asyncio.Event] = {}
        self.left: set[str] = set()
        self.learnt: dict[str, asyncio.Future[float]] = {}
        self.seconds: list[float] = []
        self.missed = 0

    async def run(self, port: int, requests: int) -> None:
        """Begin so many requests and leave each."""
        numbers = iter(range(requests))

        async def leave_on() -> None:
            for place in numbers:
                if place % (requests // 10 or 1) == 0:
                    say(f"aborts {place}/{requests}")
                await self._leave_one(port, place)

        await asyncio.gather(*(leave_on() for _ in range(_AT_ONCE)))

    async def _leave_one(self, port: int, place: int) -> None:
        name = f"abort{place}"
        begun = self.begun[name] = asyncio.Event()
        learnt = self.learnt[name] = asyncio.get_running_loop().create_future()
        streams = bool(place % 2)
        asked = request(port, stream_tokens=100 if streams else None)
        asked = asked.replace(b"\r\n", f"\r\nx-request-id: {name}\r\n".encode(), 1)
        reader, writer = await asyncio.open_connection(serving.HOST, port)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                writer.write(asked)
                await (reader.readuntil(CONTENT) if streams else begun.wait())
                left = time.perf_counter()
                self.left.add(name)
                writer.transport.abort()
                self.seconds.append(await learnt - left)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            self.missed += 1
        finally:
            writer.transport.abort()


async def _measure(given: argparse.Namespace, cores: machine.Cores) -> AbortBench:
    bench = AbortBench()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Backend(bench), serving.HOST, 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    up = serving.gateway(cores.gateway, [port] * serving.MODELS)
    try:
        async with serving.beside_loop(up) as gateway:
            await bench.run(gateway.port, given.requests)
    finally:
        server.close()
    return bench


def main(arguments: list[str]) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench aborts", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000)
    given = parser.parse_args(arguments)
    cores = machine.cores()
    os.sched_setaffinity(0, {cores.load})
    bench = uvloop.run(_measure(given, cores))
    soon = sum(seconds <= _SOON_SECONDS for seconds in bench.seconds)
    figures = ", ".join(
        f"{name} {number(share_of(bench.seconds, share) * 1e3)} ms"
        for name, share in (("p50", 0.5), ("p99", 0.99), ("slowest", 1.0))
    )
    print(f"aborts: {given.requests:,}; within 100 ms {soon:,}; never {bench.missed}; {figures}")
    return int(bool(bench.missed) or not bench.seconds)
