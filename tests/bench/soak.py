"""`python -m tests.bench soak`: many requests, some to failing backends, some with large bodies.

Of the requests 5% meet a fault (a reset, a 503, an answer that is cut, nonsense), a fifth are
streamed, and 1% have a body of 4 MB. Each model has an address of its own, so that what fails at
one is asked of another; what has begun to stream cannot be, and is `broken`. Shown as it goes: the
gateway's resident memory, open descriptors and asyncio's tasks. What counts is how they are once it
is over, against how they were after the warm-up. Exits 1 where memory has grown by more than
`--most-mb`, or there are more tasks than before, or more descriptors but for one a backend. SIGTERM
ends it early, and shows what there is by then. The long run: `--requests 1000000 --warm 50000
--most-mb 10`.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from tests.bench import machine, serving
from tests.bench.report import say
from tests.bench.wire import END, LENGTH, Streamed, request, unary

_AT_ONCE: Final = 32
_FAULT_EVERY: Final = 20
_LARGE_EVERY: Final = 100
_STREAM_EVERY: Final = 5
_STREAM_TOKENS: Final = 20
_LARGE_BYTES: Final = 4_000_000
_SETTLE_SECONDS: Final = 12.0
"""For connections to be closed that nobody uses, and for joules that are waited for."""
TASKS_FILE: Final = "JOULEGATE_BENCH_TASKS"


class Held(NamedTuple):
    """What the gateway's process holds."""

    resident_mb: float
    descriptors: int
    tasks: int


class _Faulty(asyncio.Protocol):
    """Answers, but for every twentieth request."""

    served = 0

    def __init__(self, whole: bytes, streamed: bytes) -> None:
        self._wholes = whole, streamed
        self._whole = whole
        self._missing = 0
        self._head = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            self._head = b""
            found = LENGTH.search(data, 0, end + 2)
            self._missing = end + 4 + (int(found[1]) if found else 0) - len(data)
            self._whole = self._wholes[b'"stream":true' in data]
            if data.startswith(b"GET"):
                self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                return
        if not self._missing:
            self._answer()

    def _answer(self) -> None:
        _Faulty.served += 1
        number, turn = divmod(_Faulty.served, _FAULT_EVERY)
        if turn:
            self._transport.write(self._whole)
        elif number % 4 == 0:
            self._transport.abort()
        elif number % 4 == 1:
            self._transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno"
            )
        elif number % 4 == 2:
            self._transport.write(self._whole[:-20])
            self._transport.close()
        else:
            self._transport.write(b"nonsense\r\n\r\n")


class _Client:
    """Asks on one connection after another until there is nothing left to ask."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._small = request(port)
        self._stream = request(port, stream_tokens=_STREAM_TOKENS)
        head, _, body = self._small.partition(b"\r\n\r\n")
        # Nothing that counts as a prompt: it is to reach a backend.
        body = body[:-1] + b',"metadata":{"note":"%b"}}' % (b"x" * _LARGE_BYTES)
        large = LENGTH.sub(b"\r\ncontent-length: %d" % len(body), head + b"\r\n")
        self._large = large + b"\r\n" + body
        self.codes: dict[str, int] = {}
        self.done = 0
        self.stopped = False

    async def ask_on(self, until: int) -> None:
        """Ask until so many have been asked by all."""
        writer: asyncio.StreamWriter | None = None
        while self.done < until and not self.stopped:
            self.done += 1
            asked = self._small
            if self.done % _LARGE_EVERY == 0:
                asked = self._large
            elif self.done % _STREAM_EVERY == 0:
                asked = self._stream
            code, closes = "lost", True
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(serving.HOST, self._port)
                writer.write(asked)
                head = await reader.readuntil(b"\r\n\r\n")
                found = LENGTH.search(head)
                if found:
                    await reader.readexactly(int(found[1]))
                    code = head[9:12].decode()
                else:
                    code = "broken"
                    if b"data: [DONE]" in await reader.readuntil(END):
                        code = "200"
                closes = b"connection: close" in head
            except (OSError, asyncio.IncompleteReadError):
                pass
            self.codes[code] = self.codes.get(code, 0) + 1
            if closes and writer is not None:
                writer.close()
                writer = None
        if writer is not None:
            writer.close()


def read_held(pid: int, tasks: Path) -> Held:
    """Ask the gateway's process what it holds."""
    before = tasks.stat().st_mtime_ns if tasks.exists() else 0
    os.kill(pid, signal.SIGUSR1)
    for _ in range(500):
        if tasks.exists() and tasks.stat().st_mtime_ns != before:
            break
        time.sleep(0.01)
    count = int(tasks.read_text(encoding="ascii"))
    return Held(machine.memory_mb(pid)[0], len(list(Path(f"/proc/{pid}/fd").iterdir())), count)


async def _measure(given: argparse.Namespace, cores: machine.Cores) -> tuple[Held, Held, _Client]:
    loop = asyncio.get_running_loop()
    name = "microsoft/Phi-3-mini-4k-instruct"
    pieces = Streamed(name)
    # Its last token is the tail's.
    streamed = pieces.head + pieces.token * (_STREAM_TOKENS - 1) + pieces.tail(_STREAM_TOKENS)
    whole = unary(name)
    servers = [
        await loop.create_server(lambda: _Faulty(whole, streamed), serving.HOST, 0, backlog=4096)
        for _ in range(serving.MODELS)
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder, "tasks")
        os.environ[TASKS_FILE] = str(tasks)
        up = serving.gateway(cores.gateway, ports, module="tests.bench.soak")
        try:
            async with serving.beside_loop(up) as gateway:
                client = _Client(gateway.port)
                loop.add_signal_handler(signal.SIGTERM, setattr, client, "stopped", True)
                first: Held | None = None
                began = time.monotonic()
                steps = [*range(given.step, given.requests, given.step), given.requests]
                for until in steps:
                    if client.stopped:
                        break
                    await asyncio.gather(*(client.ask_on(until) for _ in range(_AT_ONCE)))
                    if first is None and until >= given.warm:
                        await asyncio.sleep(_SETTLE_SECONDS)
                        first = await asyncio.to_thread(read_held, gateway.pid, tasks)
                    held = await asyncio.to_thread(read_held, gateway.pid, tasks)
                    took = time.monotonic() - began
                    say(f"{until:,} requests in {took:,.0f} s: {held} {client.codes}")
                await asyncio.sleep(_SETTLE_SECONDS)
                last = await asyncio.to_thread(read_held, gateway.pid, tasks)
        finally:
            for server in servers:
                server.close()
    return first or last, last, client


def main(arguments: list[str]) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=150_000)
    parser.add_argument("--warm", type=int, default=20_000, help="requests before it counts")
    parser.add_argument("--step", type=int, default=10_000, help="requests between lines")
    parser.add_argument("--most-mb", type=float, default=20.0)
    given = parser.parse_args(arguments)
    machine.allow_many_files()
    cores = machine.cores()
    os.sched_setaffinity(0, {cores.load})
    first, last, client = uvloop.run(_measure(given, cores))
    grown = last.resident_mb - first.resident_mb
    print(f"{client.done:,} requests, by status {client.codes}")
    print(f"after {given.warm:,}: {first}")
    print(f"at the end:  {last}; resident memory grew by {grown:.1f} MB")
    # A connection may be kept to each backend, or none.
    kept = serving.MODELS
    more = last.descriptors > first.descriptors + kept or last.tasks > first.tasks
    return int(grown > given.most_mb or more)


def _serve_counted() -> None:
    """Be the gateway, and write down how many tasks there are whenever asked by SIGUSR1."""
    from gateway import cli  # only where the gateway is to run

    def write_count(*_: object) -> None:
        count = len(asyncio.all_tasks())
        Path(os.environ[TASKS_FILE]).write_text(str(count), encoding="ascii")

    signal.signal(signal.SIGUSR1, write_count)
    cli.main()


if __name__ == "__main__":
    sys.exit(_serve_counted())
