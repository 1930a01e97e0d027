"""Backends that cost next to nothing: fixed bytes, and streams paced by one timer.

`python -m tests.bench.upstream INTERVAL_MS PORT=SERVED_NAME ...` runs until it is ended.
"""

import asyncio
import gc
import os
import re
import sys
from collections import deque
from typing import Any

import uvloop

from tests.bench.wire import LENGTH, Streamed, unary, whole

_MAX_TOKENS = re.compile(rb'"max_tokens":(\d+)')
_TICK_SECONDS = 0.001


class Backend(asyncio.Protocol):
    """One connection; requests come one after another."""

    __slots__ = ("_buffer", "_descriptor", "_pacer", "_transport", "_unary", "gone", "left", "of")

    def __init__(self, whole_answer: bytes, pacer: "Pacer") -> None:
        self._unary = whole_answer
        self._pacer = pacer
        self._buffer = b""
        self._transport: Any = None
        self._descriptor = -1
        self.gone = False
        self.left = 0
        self.of = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._descriptor = transport.get_extra_info("socket").fileno()

    def connection_lost(self, _: Exception | None) -> None:
        self.gone = True

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        end = data.find(b"\r\n\r\n")
        found = LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if end < 0 or len(data) < end + 4 + (int(found[1]) if found else 0):
            self._buffer = data
        elif data.startswith(b"GET"):
            self._transport.write(whole("text/plain", b""))
        elif b'"stream":true' in data:
            asked = _MAX_TOKENS.search(data, end)
            self.left = self.of = int(asked[1]) if asked else 16
            self._pacer.start(self)
        else:
            self._transport.write(self._unary)

    def put(self, piece: bytes) -> None:
        """Send a piece, past the event loop where the socket takes it at once."""
        sent = 0
        if not self._transport.get_write_buffer_size():
            try:
                sent = os.write(self._descriptor, piece)
            except BlockingIOError:
                pass
            except OSError:
                self.gone = True
                return
        if sent < len(piece):
            self._transport.write(piece[sent:])


class Pacer:
    """Gives each stream a token every `interval`; all wait equally long, so a queue keeps order."""

    def __init__(self, streamed: Streamed, interval: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._streamed = streamed
        self._interval = interval
        self._due: deque[tuple[float, Backend]] = deque()
        self._ticking = False

    def start(self, backend: Backend) -> None:
        """Send the head now; the first token comes after one interval, as after a prefill."""
        backend.put(self._streamed.head)
        self._due.append((self._loop.time() + self._interval, backend))
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(_TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        due = self._due
        token = self._streamed.token
        while due and due[0][0] <= now:
            at, backend = due.popleft()
            if backend.gone:
                continue
            backend.left -= 1
            if backend.left:
                backend.put(token)
                due.append((at + self._interval, backend))
            else:
                backend.put(self._streamed.tail(backend.of))
        if due:
            self._loop.call_later(_TICK_SECONDS, self._tick)
        else:
            self._ticking = False


async def _serve(interval: float, backends: dict[int, str]) -> None:
    loop = asyncio.get_running_loop()
    for port, name in backends.items():
        answer, pacer = unary(name), Pacer(Streamed(name), interval)

        def made(answer: bytes = answer, pacer: Pacer = pacer) -> Backend:
            return Backend(answer, pacer)

        await loop.create_server(made, "127.0.0.1", port, backlog=4096)
    gc.disable()
    await loop.create_future()


if __name__ == "__main__":
    named = (argument.split("=", 1) for argument in sys.argv[2:])
    uvloop.run(_serve(float(sys.argv[1]) / 1e3, {int(port): name for port, name in named}))
