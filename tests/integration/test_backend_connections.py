"""The client's connections to backends: kept, closed, left; real sockets, both event loops."""

import asyncio
import contextlib
import socket
import time
from pathlib import Path

import pytest

from backends.errors import BackendError, ConnectionLost
from backends.http import pool as pools
from tests.integration.backend_talks import CHUNKED, ask, on_both_loops, talking_to
from tests.integration.harness import until
from tests.integration.scripted import request, response

NEVER, ALWAYS = 0.0, 3600.0
"""How long after sending a close counts as met: for tests that must not depend on speed."""


@on_both_loops
async def test_answers_come_over_one_connection():
    async def talk(reader, writer):
        while True:
            line, body = await request(reader)
            assert line == "POST /x HTTP/1.1"
            writer.write(response(body))

    async with talking_to(talk) as (client, server, url):
        for n in range(20):
            assert await ask(client, url, b"%d" % n) == (200, b"%d" % n)
        assert server.connections == 1
        assert client.busy == 0


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@on_both_loops
async def test_an_answer_that_comes_byte_by_byte(framing):
    raw = {
        "length": response(b"hello"),
        "chunked": CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\nhello",
    }[framing]

    async def talk(reader, writer):
        await request(reader)
        for byte in raw:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with talking_to(talk) as (client, _, url):
        assert await ask(client, url) == (200, b"hello")


# --- kept connections -------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True])
@on_both_loops
async def test_a_second_answer_is_given_to_nobody(apart):
    strays = 0

    async def talk(reader, writer):
        nonlocal strays
        _, body = await request(reader)
        writer.write(response(body) if apart else response(body) + response(b"stray"))
        if apart:
            await asyncio.sleep(0.02)
            writer.write(response(b"stray"))
        strays += 1
        await reader.read()

    async with talking_to(talk) as (client, server, url):
        for n in range(5):
            assert await ask(client, url, b"%d" % n) == (200, b"%d" % n)
            await until(lambda n=n: strays == n + 1)
            # The stray is in the kernel, and the loop may not have had a turn to read it.
            await until(lambda: client.busy == 0)
            if apart:
                await asyncio.sleep(0.02)
        assert server.connections == 5


@on_both_loops
async def test_unread_bytes_are_seen_before_the_loop_reads_them():
    async def talk(reader, writer):
        _, body = await request(reader)
        writer.write(response(body))
        await reader.read()

    async with talking_to(talk) as (client, server, url):
        await ask(client, url)
        pool = next(iter(client._pools.values()))
        (kept,) = pool._idle
        # What the server writes arrives, but the loop gets no turn to read it.
        peer = socket.socket(fileno=socket.dup(_other_end(server, kept)))
        with peer:
            peer.setblocking(True)
            peer.sendall(b"stray")
            time.sleep(0.05)  # noqa: ASYNC251 - the loop must not run
            assert not kept.clean
        assert await ask(client, url, b"own") == (200, b"own")
        assert server.connections == 2


def _other_end(server, connection):
    """Return the server's descriptor of a connection."""
    mine = connection._socket.getsockname()
    for writer in server.writers:
        sock = writer.get_extra_info("socket")
        if sock.getpeername() == mine:
            return sock.fileno()
    raise AssertionError("the server has no such connection")


@on_both_loops
async def test_a_close_that_met_a_request_costs_one_more_sending_and_no_attempt():
    async def talk(reader, writer):
        _, body = await request(reader)
        writer.write(response(body))
        await request(reader)

    async with talking_to(talk, closed_at_once_seconds=ALWAYS) as (client, server, url):
        for n in range(6):
            assert await ask(client, url, b"%d" % n) == (200, b"%d" % n)
        assert server.connections == 6


@on_both_loops
async def test_a_request_is_sent_twice_at_most():
    sent = 0

    async def talk(reader, writer):
        nonlocal sent
        _, body = await request(reader)
        if body == b"poison":
            sent += 1
            return
        writer.write(response(body))
        _, body = await request(reader)
        sent += body == b"poison"

    async with talking_to(talk, closed_at_once_seconds=ALWAYS) as (client, _, url):
        await asyncio.gather(*(ask(client, url) for _ in range(8)))
        with pytest.raises(ConnectionLost):
            await ask(client, url, b"poison")
        assert sent == 2


@pytest.mark.parametrize("how", ["later", "after a byte", "on a new connection"])
@on_both_loops
async def test_what_was_worked_on_is_not_sent_again(how):
    sent = 0

    async def talk(reader, writer):
        nonlocal sent
        while True:
            _, body = await request(reader)
            if body == b"poison":
                sent += 1
                if how == "after a byte":
                    writer.write(b"H")
                    await writer.drain()
                return
            writer.write(response(body))

    at_once = NEVER if how == "later" else ALWAYS
    async with talking_to(talk, closed_at_once_seconds=at_once) as (client, _, url):
        if how != "on a new connection":
            await asyncio.gather(*(ask(client, url) for _ in range(8)))
        with pytest.raises(ConnectionLost):
            await ask(client, url, b"poison")
        assert sent == 1


@on_both_loops
async def test_an_idle_connection_is_closed_in_time(monkeypatch):
    monkeypatch.setattr(pools, "KEEPALIVE_SECONDS", 0.05)
    monkeypatch.setattr(pools, "_SWEEP_SECONDS", 0.02)
    ended = asyncio.Event()

    async def talk(reader, writer):
        await request(reader)
        writer.write(response(b"hi"))
        assert await reader.read() == b""
        ended.set()

    async with talking_to(talk) as (client, _, url):
        await ask(client, url)
        await ended.wait()
        assert not next(iter(client._pools.values()))._open


@pytest.mark.parametrize("ends", [True, False])
@on_both_loops
async def test_the_bytes_behind_the_last_event_are_read_for_nobody(ends):
    go = asyncio.Event()
    closed = asyncio.Event()

    async def talk(reader, writer):
        while True:
            await request(reader)
            writer.write(CHUNKED + b"2\r\nhi\r\n")
            await go.wait()
            if ends:
                writer.write(b"0\r\n\r\n")
            elif not await reader.read(1):
                closed.set()
                return

    async with talking_to(talk) as (client, server, url):
        answer = await client.post(url, b"{}", {})
        assert await answer.read_chunk() == b"hi"
        answer.finish_reading()
        answer.close()
        go.set()
        if ends:
            await until(lambda: client.busy == 0)
            answer = await client.post(url, b"{}", {})
            answer.close()
            assert server.connections == 1
        else:
            await closed.wait()
            assert client.busy == 0


# --- what is left behind ----------------------------------------------------------------------


def sockets():
    """Count this process's sockets; 0 where the system does not tell."""
    found = 0
    for entry in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            found += str(entry.readlink()).startswith("socket:")
    return found


@on_both_loops
async def test_nothing_is_left_behind():
    async def talk(reader, writer):
        while True:
            _, body = await request(reader)
            if body == b"1":
                return
            writer.write(response(body) if body == b"0" else CHUNKED + b"2\r\nhi\r\n")

    before = sockets()
    async with talking_to(talk) as (client, _, url):
        for n in range(30):
            with contextlib.suppress(BackendError):
                answer = await client.post(url, b"%d" % (n % 3), {})
                answer.close()
        assert client.busy == 0
    await until(lambda: sockets() == before, "sockets to be closed")
    assert asyncio.all_tasks() == {asyncio.current_task()}
