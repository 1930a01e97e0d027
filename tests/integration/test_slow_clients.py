"""Clients that read slowly hold their backend back; those that stop reading are let go."""

import asyncio
import contextlib
import json
import socket

import pytest

from gateway.config import TimeoutsConfig
from tests.integration.harness import STREAM, model, until
from tests.integration.scripted import DONE_EVENT, delta, request, response

EVENT = delta(content="x" * 8000)
MANY = 8000
"""Some 64 MB in all, which no chain of socket buffers holds."""
SMALL = 1 << 16
BOUND = 16 << 20
"""What two hops of kernel buffers may swallow at most (tcp_wmem and tcp_rmem end at 4 and 6 MB)."""


class Source:
    """A backend that streams as fast as it is read."""

    def __init__(self, events=MANY):
        self.events = events
        self.sent = 0
        self.open = 0

    async def __call__(self, reader, writer):
        _, body = await request(reader)
        if not body:
            writer.write(response())
            await writer.drain()
            return
        sock = writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        self.open += 1
        try:
            for _ in range(self.events):
                writer.write(EVENT)
                await writer.drain()
                self.sent += len(EVENT)
            writer.write(delta(finish_reason="stop") + DONE_EVENT)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        finally:
            self.open -= 1


@contextlib.asynccontextmanager
async def reader_of(gate, body):
    """A client with a small window that reads only what the test reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    sock.setblocking(False)
    host, port = gate.url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, (host, int(port)))
        sent = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(sent)}\r\n"
        await loop.sock_sendall(sock, head.encode() + b"connection: close\r\n\r\n" + sent)
        yield sock
    finally:
        sock.close()


async def paused(source):
    """Wait until the backend cannot write any more."""
    before = -1
    while before != source.sent or not source.sent:
        before = source.sent
        await asyncio.sleep(0.3)
    return source.sent


def buffered(gate):
    """Bytes that the gateway itself holds for its clients."""
    return sum(c.transport.get_write_buffer_size() for c in gate.server.server_state.connections)


async def test_a_client_that_does_not_read_pauses_its_backend(world):
    source = Source()
    gate = await world.gate(model("phi-3-mini", await world.raw(source)))
    async with reader_of(gate, STREAM) as sock:
        sent = await paused(source)
        assert sent < BOUND < MANY * len(EVENT)
        assert buffered(gate) < 1 << 20
        # Others are served meanwhile.
        assert (await gate.get("/health")).status == 200
        # Reading a little lets as little through.
        loop = asyncio.get_running_loop()
        read = 0
        while read < 4 << 20:
            read += len(await loop.sock_recv(sock, SMALL))
        assert await paused(source) < sent + BOUND
    await until(lambda: source.open == 0, "the backend's connection to be closed")
    await until(lambda: gate.idle)
    assert await gate.metric("joulegate_client_disconnects_total") == 1


async def test_a_slow_client_gets_every_byte(world):
    source = Source(500)
    gate = await world.gate(model("phi-3-mini", await world.raw(source)))
    async with reader_of(gate, STREAM) as sock:
        await paused(source)
        loop = asyncio.get_running_loop()
        raw = b""
        while piece := await loop.sock_recv(sock, SMALL):
            raw += piece
            await asyncio.sleep(0)
    body, rest = b"", raw.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    assert body == EVENT * 500 + delta(finish_reason="stop") + DONE_EVENT
    await until(lambda: gate.idle)
    assert await gate.metric("joulegate_requests_total", code="200") == 1


@pytest.mark.parametrize("events", [MANY])
async def test_a_client_that_stops_reading_is_cut(world, events):
    source = Source(events)
    gate = await world.gate(
        model("phi-3-mini", await world.raw(source)), timeouts=TimeoutsConfig(stall_seconds=1)
    )
    async with reader_of(gate, STREAM):
        await until(lambda: source.open == 1)
        await until(lambda: source.open == 0, "the backend's connection to be closed")
        await until(lambda: gate.idle, "the gateway to be idle")
        assert await gate.metric("joulegate_requests_total", code="499") == 1
        # It is the client's fault and not the backend's.
        assert gate.gateway.backends[0]._failures == 0
        # Its connection goes too, though it never reads what is buffered for it.
        mine = gate.server.server_state.connections
        await until(lambda: len(mine) <= 1 and buffered(gate) == 0, "the connection to be closed")


async def test_reading_slowly_but_steadily_is_no_stall(world):
    # Longer than stall_seconds in all, with pauses well below it.
    source = Source(1500)
    gate = await world.gate(
        model("phi-3-mini", await world.raw(source)), timeouts=TimeoutsConfig(stall_seconds=2)
    )
    loop = asyncio.get_running_loop()
    async with reader_of(gate, STREAM) as sock:
        began = loop.time()
        raw = b""
        while piece := await loop.sock_recv(sock, 1 << 18):
            raw = (raw + piece)[-400:]
            await asyncio.sleep(0.05 if loop.time() - began < 3 else 0)
    assert DONE_EVENT in raw
    assert await gate.metric("joulegate_requests_total", code="200") == 1
