"""`python -m tests.bench pressure`: slow clients, three times the load there is room for, a drain.

Each part compares two things in one run. *slow*: the median of quick requests alone, and while a
thousand connections send heads and bodies a byte at a time and read nothing, neither whole answers
nor streams of 8 MB each; how much the gateway's memory grows by them. *overload*: what is
served in time at three times the capacity against what is served by as many clients as there are
places, both of the same gateway. *drain*: requests in flight at a backend that is drained by hand.
Exits 1 where a bound of docs/benchmarks.md does not hold.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

import aiohttp
import yaml

from tests.bench import machine, serving
from tests.bench.report import say
from tests.bench.wire import LENGTH, Streamed, unary

_MODEL: Final = "phi-3-mini"
_BODY: Final = {"model": _MODEL, "messages": [{"role": "user", "content": "Hello"}]}
_PATH: Final = "/v1/chat/completions"
_PLACES: Final = 10
_ANSWER_SECONDS: Final = 0.1
_KINDS: Final = 4
_TYPING: Final = 2
"""The first kinds of slow connections send on, a byte at a time; the others read nothing."""
_DEADLINE_SECONDS: Final = 1.0
_MOST_MEMORY_MB: Final = 10.0
_LARGE_BYTES: Final = 1 << 20
_STREAM_BYTES: Final = 8 << 20
_EVENT_BYTES: Final = 32 << 10
"""Large, so that the kernel's buffers, of megabytes a connection, are full after few of them."""
_REST_SECONDS: Final = 90.0
_MOST_HELD_BYTES: Final = 1 << 20
"""What the gateway may hold of one stream that nobody reads: sockets' buffers are the kernel's."""
_ANSWER: Final = unary(_MODEL)
_sent = [0]
"""Events of streams that were sent."""


@contextlib.asynccontextmanager
async def _backends(count: int, seconds: float) -> AsyncIterator[list[int]]:
    """Run servers that answer each request after so long; yield their ports."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = LENGTH.search(head)
                body = await reader.readexactly(int(found[1]) if found else 0)
                if head.startswith(b"POST"):
                    await asyncio.sleep(seconds)
                if b'"stream":true' in body.replace(b" ", b""):
                    await _send_stream(writer)
                else:
                    writer.write(_ANSWER)
        writer.close()

    servers = [
        await asyncio.start_server(answer, serving.HOST, 0, backlog=4096) for _ in range(count)
    ]
    try:
        yield [server.sockets[0].getsockname()[1] for server in servers]
    finally:
        for server in servers:
            server.close()


async def _send_stream(writer: asyncio.StreamWriter) -> None:
    """Send a stream of 8 MB in events of 32 kB, as fast as it is read."""
    pieces = Streamed(_MODEL, " word" * (_EVENT_BYTES // 5))
    writer.write(pieces.head)
    count = _STREAM_BYTES // _EVENT_BYTES
    for _ in range(count):
        writer.write(pieces.token)
        await writer.drain()
        _sent[0] += 1
    writer.write(pieces.tail(count + 1))


def _configure(ports: Iterable[int], **more: Any) -> str:
    backends = [{"url": f"http://{serving.HOST}:{port}"} for port in ports]
    model = {"name": _MODEL, "context": 4096, "backends": backends}
    quiet = {"probe_seconds": 3600, "idle_probe_seconds": 3600, "load_seconds": 3600}
    return yaml.safe_dump({"models": [model], "health": quiet} | more)


def _client(port: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        f"http://{serving.HOST}:{port}", connector=aiohttp.TCPConnector(limit=0)
    )


async def _ask(
    http: aiohttp.ClientSession, headers: dict[str, str] | None = None
) -> tuple[int, float]:
    """Return the status and the seconds it took."""
    began = time.perf_counter()
    async with http.post(_PATH, json=_BODY, headers=headers) as response:
        await response.read()
        return response.status, time.perf_counter() - began


async def _run_closed(
    http: aiohttp.ClientSession, clients: int, seconds: float
) -> list[tuple[int, float]]:
    """Return what came of so many clients that each ask one after the other."""
    until, found = time.perf_counter() + seconds, []

    async def ask_on() -> None:
        while time.perf_counter() < until:
            found.append(await _ask(http))

    await asyncio.gather(*(ask_on() for _ in range(clients)))
    return found


def _median_ms(found: list[tuple[int, float]]) -> float:
    return statistics.median(seconds for _, seconds in found) * 1e3


async def measure_slow(core: int, slow: int, seconds: float) -> bool:
    """Compare quick requests alone and beside slow connections."""
    async with _backends(1, 0.0) as ports:
        with serving.configured(core, _configure(ports)) as gateway:
            async with _client(gateway.port) as http:
                await _run_closed(http, 2, 1.0)
                alone = await _run_closed(http, 2, seconds)
                memory = machine.memory_mb(gateway.pid)[0]
                async with _crawl(gateway.port, slow) as held:
                    await _wait_for_rest()
                    beside = await _run_closed(http, 2, seconds)
                    left = held()
                    grown = machine.memory_mb(gateway.pid)[0] - memory
                again = await _run_closed(http, 2, seconds)
    bad = sum(status != 200 for status, _ in beside)
    before, during = _median_ms(alone + again), _median_ms(beside)
    say(f"slow: {slow} connections, {left} of them still held at the end")
    say(f"  median {before:.2f} ms alone, {during:.2f} ms beside them ({during / before:.2f} x)")
    say(f"  {len(beside)} requests, {bad} not answered; memory grew by {grown:.1f} MB")
    return bad == 0 and during <= 2.0 * before and grown * 1e6 <= slow // _KINDS * _MOST_HELD_BYTES


async def _wait_for_rest() -> None:
    """Wait until all that was asked for is served, or fills the kernel's buffers: 6 MB a stream."""
    async with asyncio.timeout(_REST_SECONDS):
        seen = -1
        while seen != _sent[0]:
            seen = _sent[0]
            await asyncio.sleep(2.0)


@contextlib.asynccontextmanager
async def _crawl(port: int, count: int) -> AsyncIterator[Callable[[], int]]:
    """Hold connections that send heads or bodies a byte at a time, or read nothing."""
    head = f"POST {_PATH} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    large, small = json.dumps(_BODY | {"user": "x" * _LARGE_BYTES}), json.dumps(_BODY)
    stream = json.dumps(_BODY | {"stream": True})
    bodies = ((large, large[:100]), (small, small), (stream, stream))
    kinds = [head.encode()]
    for whole, sent in bodies:
        kinds.append(f"{head}content-length: {len(whole)}\r\n\r\n{sent}".encode())
    writers: list[asyncio.StreamWriter] = []
    for number in range(count):
        # As little as the kernel allows: or it would read for who does not.
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (serving.HOST, port))
        reader, writer = await asyncio.open_connection(sock=client, limit=1)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(kinds[number % len(kinds)])
        writers.append(writer)

    async def drip() -> None:
        while True:
            for number, writer in enumerate(writers):
                if number % len(kinds) < _TYPING and not writer.is_closing():
                    writer.write(b"x")
                if number % 100 == 0:
                    await asyncio.sleep(0.1)

    dripping = asyncio.create_task(drip())
    try:
        yield lambda: sum(not writer.is_closing() for writer in writers)
    finally:
        dripping.cancel()
        for writer in writers:
            writer.transport.abort()


async def measure_overload(core: int, seconds: float) -> bool:
    """Compare what is served in time at three times the capacity with the capacity."""
    limits = {"max_running": _PLACES, "max_queued": 1000}
    async with _backends(1, _ANSWER_SECONDS) as ports:
        with serving.configured(core, _configure(ports, limits=limits)) as gateway:
            async with _client(gateway.port) as http:
                await _run_closed(http, _PLACES, 2.0)
                # Answers that come after the last request are served in time of their own.
                began = time.perf_counter()
                full = await _run_closed(http, _PLACES, seconds)
                capacity = len(full) / (time.perf_counter() - began)
                await _run_open(http, 3.0 * capacity, 2.0)
                memory = machine.memory_mb(gateway.pid)[0]
                began = time.perf_counter()
                found = await _run_open(http, 3.0 * capacity, seconds)
                took = time.perf_counter() - began
                grown = machine.memory_mb(gateway.pid)[0] - memory
    served = [taken for status, taken in found if status == 200]
    late = sum(taken > _DEADLINE_SECONDS for taken in served)
    other = sum(status not in {200, 429} for status, _ in found)
    goodput = (len(served) - late) / took / capacity
    rate = len(found) / seconds
    say(f"overload: {rate:.0f} requests/s where {capacity:.0f} can be served")
    say(f"  served in time: {goodput:.1%} of that; {late} of the {len(served)} admitted were late")
    say(f"  neither 200 nor 429: {other}; memory grew by {grown:.1f} MB")
    return goodput >= 0.9 and late <= 0.01 * len(served) and not other and grown < _MOST_MEMORY_MB


async def _run_open(
    http: aiohttp.ClientSession, rate: float, seconds: float
) -> list[tuple[int, float]]:
    """Return what came of requests that come at a rate, whatever becomes of them."""
    told = {"x-stainless-read-timeout": str(_DEADLINE_SECONDS)}
    began, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(_ask(http, told)))
    return await asyncio.gather(*tasks)


async def measure_drain(core: int, count: int) -> bool:
    """Drain a backend with so many requests in flight; return whether none is lost."""
    admin = serving.free_port()
    async with _backends(2, 8.0) as ports:
        config = _configure(ports, admin={"port": admin})
        with serving.configured(core, config) as gateway:
            async with _client(gateway.port) as http, _client(admin) as operator:
                label = f"{serving.HOST}:{ports[1]}"
                await operator.post("/admin/backends/drain", json={"backend": label})
                tasks = [asyncio.create_task(_ask(http)) for _ in range(count)]
                first = f"{serving.HOST}:{ports[0]}"
                inflight = 0
                while inflight < count and not all(task.done() for task in tasks):
                    await asyncio.sleep(0.1)
                    inflight = await _count_inflight(operator, first)
                await operator.post("/admin/backends/undrain", json={"backend": label})
                await operator.post("/admin/backends/drain", json={"backend": first})
                drained_with = await _count_inflight(operator, first)
                status, _ = await _ask(http)
                found = await asyncio.gather(*tasks)
                left = await _count_inflight(operator, first)
    lost = sum(status != 200 for status, _ in found)
    say(f"drain: {drained_with} of {count} in flight when the backend was drained; {lost} lost")
    say(f"  {left} in flight there at the end; a request that came meanwhile: {status}")
    return lost == left == 0 and drained_with > 0.9 * count and status == 200


async def _count_inflight(operator: aiohttp.ClientSession, backend: str) -> int:
    async with operator.get("/admin/backends") as response:
        shown = (await response.json())["backends"]
    return next(int(one["inflight"]) for one in shown if one["backend"] == backend)


def main(arguments: list[str]) -> int:
    """Measure each part; 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench pressure", description=__doc__)
    parser.add_argument("parts", nargs="*", default=["slow", "overload", "drain"])
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--inflight", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=8.0)
    asked = parser.parse_args(arguments)
    machine.allow_many_files()
    cores = machine.cores()
    os.sched_setaffinity(0, {cores.load})
    parts = {
        "slow": lambda: measure_slow(cores.gateway, asked.slow, asked.seconds),
        "overload": lambda: measure_overload(cores.gateway, asked.seconds),
        "drain": lambda: measure_drain(cores.gateway, asked.inflight),
    }
    held = [asyncio.run(parts[name]()) for name in asked.parts]
    return 0 if all(held) else 1
