"""`python -m tests.bench burst`: streams begun at once on new connections; does one wait long?

A newcomer that has its first token only after another stream has ended had to wait for that one's
end. The same burst goes to a backend directly, beside it, to show what the load itself can do.
Exits 1 where any waited through the gateway, or a stream broke.
"""

import argparse
import asyncio
import os
import time
from typing import Any, Final, NamedTuple

import uvloop

from tests.bench import machine, serving
from tests.bench.report import number, say, share_of
from tests.bench.wire import CONTENT, END, request

_INTERVAL_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 60.0


class BurstStream(NamedTuple):
    """When a stream had its first token and its end, in seconds since all of them were begun."""

    first: float
    end: float


def count_waiting(streams: list[BurstStream]) -> int:
    """Return how many had their first token only after another had ended."""
    earliest = min((stream.end for stream in streams), default=0.0)
    return sum(stream.first > earliest for stream in streams)


class _Stream(asyncio.Protocol):
    def __init__(
        self, asked: bytes, began: float, done: asyncio.Future[BurstStream | None]
    ) -> None:
        self._asked = asked
        self._began = began
        self._done = done
        self._first = 0.0
        self._tail = b""

    def connection_made(self, transport: Any) -> None:
        transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter() - self._began
        self._tail = (self._tail + data)[-2048:]
        if not self._first and CONTENT in self._tail:
            self._first = now
        if self._tail.endswith(END) and b"[DONE]" in self._tail and not self._done.done():
            self._done.set_result(BurstStream(self._first, now))

    def connection_lost(self, _: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


async def _burst(port: int, count: int, tokens: int) -> list[BurstStream | None]:
    loop = asyncio.get_running_loop()
    asked = request(port, stream_tokens=tokens)
    began = time.perf_counter()
    ends: list[asyncio.Future[BurstStream | None]] = [loop.create_future() for _ in range(count)]
    dialled = (
        loop.create_connection(lambda done=done: _Stream(asked, began, done), serving.HOST, port)
        for done in ends
    )
    made = await asyncio.gather(*dialled)
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await asyncio.gather(*ends)
    except TimeoutError:
        return [end.result() if end.done() and not end.cancelled() else None for end in ends]
    finally:
        for transport, _ in made:
            transport.abort()


def main(arguments: list[str]) -> int:
    """Measure both ways in turn, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench burst", description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--tokens", type=int, default=100, help="of each, 50 a second")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    machine.allow_many_files()
    cores = machine.cores()
    os.sched_setaffinity(0, {cores.load})
    bad = 0
    with (
        serving.upstream(cores.upstream, _INTERVAL_SECONDS) as ports,
        serving.gateway(cores.gateway, ports) as gateway,
    ):
        for turn in range(given.rounds):
            for name, port in (("direct", ports[0]), ("through", gateway.port)):
                say(f"burst {turn + 1}/{given.rounds} {name}")
                meter = serving.Meter(gateway.pid, cores.gateway)
                with meter:
                    seen = uvloop.run(_burst(port, given.streams, given.tokens))
                whole = [stream for stream in seen if stream is not None]
                waiting, broken = count_waiting(whole), len(seen) - len(whole)
                firsts = [stream.first for stream in whole]
                print(
                    f"{name:8} round {turn + 1}: {given.streams:,} streams, broken {broken}, "
                    f"waited for another's end {waiting}; first token p50 "
                    f"{number(share_of(firsts, 0.5))} s, p99 {number(share_of(firsts, 0.99))} s; "
                    f"first end {number(min((s.end for s in whole), default=0.0))} s; "
                    f"others had {meter.others_share:.0%} of the gateway's core",
                    flush=True,
                )
                bad += (waiting + broken) * (name == "through")
    return int(bool(bad))
