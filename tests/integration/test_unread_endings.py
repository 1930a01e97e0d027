"""Clients that stop reading just before the end, in whatever way the end comes."""

import asyncio
import json
import logging
import socket

import pytest
from aiohttp import web

from gateway.config import HealthConfig, TimeoutsConfig
from tests.integration.harness import CHAT, ENDLESS, STREAM, model, until
from tests.integration.scripted import DONE_EVENT, delta, usage

BIG = delta(content="x" * (8 << 20))
"""More than the kernel's buffers between gateway and client hold."""
LAST = delta(finish_reason="stop") + usage() + DONE_EVENT


def ending(kind):
    """A token, one big event, and the end once `go` is set."""
    go = asyncio.Event()

    async def answer(request, _):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(delta(content="a"))
        await asyncio.sleep(0.1)
        await response.write(BIG)
        await go.wait()
        if kind == "done":
            await response.write(LAST)
        elif kind == "dies":
            request.transport.abort()
        elif kind == "errs":
            await response.write(b'data: {"error":{"message":"died","code":500}}\n\n')
        return response

    answer.go = go
    return answer


async def ask(gate, request_id):
    """Send a request on a socket that nobody reads."""
    host, port = gate.url.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (host, int(port)))
    raw = json.dumps(STREAM).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        f"x-request-id: {request_id}\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    await loop.sock_sendall(sock, head.encode() + raw)
    return sock


def blocked(gate):
    """Connections for whose clients something is buffered."""
    connections = gate.server.server_state.connections
    return [c for c in connections if c.transport.get_write_buffer_size()]


UNFINISHED = "ASGI callable returned without completing response."
"""How a broken stream is closed on purpose; `joulegate serve` keeps it out of its log."""


def bugs(caplog):
    """Errors in the log: "Exception in ASGI application", tracebacks and the like."""
    # No gateway here traces: what an exporter's thread says late is another test's.
    records = [r for r in caplog.records if not r.name.startswith("opentelemetry.")]
    errors = [r.getMessage() for r in records if r.levelno >= logging.ERROR or r.exc_info]
    return [error for error in errors if error != UNFINISHED]


@pytest.mark.parametrize(
    ("kind", "leaves"),
    [("done", False), ("dies", False), ("errs", False), ("done", True), ("dies", True)],
)
async def test_a_client_that_does_not_read_the_end_is_gone(world, caplog, kind, leaves):
    answer = ending(kind)
    backend = await world.recorder(answer)
    gate = await world.gate(
        model("phi-3-mini", backend),
        timeouts=TimeoutsConfig(stall_seconds=20 if leaves else 0.7),
        health=HealthConfig(probe_seconds=3600, idle_probe_seconds=3600),
    )
    sock = await ask(gate, "unread")
    try:
        await until(lambda: blocked(gate), "the client's side to be full")
        assert gate.gateway.inflight_requests == 1
        answer.go.set()
        # The last piece, or the error frame, waits for the client by then.
        await asyncio.sleep(0.25)
        if leaves:
            sock.close()
        await until(lambda: gate.idle, "the request to end", seconds=6)
        await until(lambda: not blocked(gate), "its connection to be dropped", seconds=3)
    finally:
        sock.close()
    record = (await gate.get("/v1/requests/unread")).json
    assert record["code"] == 499, record
    assert await gate.metric("joulegate_requests_total", code="499") == 1
    assert await gate.metric("joulegate_client_disconnects_total") <= 1
    assert await gate.metric("joulegate_backend_inflight") == 0
    assert bugs(caplog) == []


async def test_a_client_that_reads_the_end_late_gets_it(world, caplog):
    answer = ending("done")
    gate = await world.gate(
        model("phi-3-mini", await world.recorder(answer)),
        timeouts=TimeoutsConfig(stall_seconds=10),
    )
    loop = asyncio.get_running_loop()
    sock = await ask(gate, "late")
    try:
        await until(lambda: blocked(gate), "the client's side to be full")
        answer.go.set()
        await asyncio.sleep(0.25)
        raw = b""
        while not raw.endswith(b"0\r\n\r\n"):
            piece = await loop.sock_recv(sock, 1 << 20)
            assert piece, "the connection ended early"
            raw += piece
    finally:
        sock.close()
    assert DONE_EVENT in raw[-200:]
    await until(lambda: gate.idle)
    assert (await gate.get("/v1/requests/late")).json["code"] == 200
    assert bugs(caplog) == []


@pytest.mark.parametrize("body", [CHAT | ENDLESS])
async def test_a_draining_gateway_does_not_forbid_trying_again(world, body):
    simulator = await world.simulator(speed=1.0)
    gate = await world.gate(model("phi-3-mini", simulator))
    task = asyncio.create_task(gate.ask(body))
    await until(lambda: simulator.engine.running_requests == 1)
    gate.gateway.cancel_all()
    got = await task
    assert (got.status, got.json["error"]["code"]) == (503, "draining")
    # Another gateway, or this one restarted, will take it.
    assert got.headers.get("x-should-retry") != "false"
    assert int(got.headers["retry-after"]) >= 1
