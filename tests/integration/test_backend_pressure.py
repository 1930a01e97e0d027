"""The client to backends where one side is slow, leaves or has its hands full, under both loops."""

import asyncio
import contextlib

import pytest

from backends.errors import BackendTimeout
from tests.integration.backend_talks import CHUNKED, answering, ask, on_both_loops, talking_to
from tests.integration.harness import until
from tests.integration.scripted import request, response


@on_both_loops
async def test_a_probe_does_not_wait_for_ever():
    async with talking_to(answering(b"HTTP/1.1 200 OK\r\n")) as (client, _, url):
        with pytest.raises(BackendTimeout, match=r"within 0\.05 s"):
            await client.get(url, {}, seconds=0.05)
        assert client.busy == 0


@pytest.mark.parametrize("when", ["head", "body"])
@on_both_loops
async def test_giving_up_is_seen_by_the_backend(when):
    asked, left = asyncio.Event(), asyncio.Event()

    async def talk(reader, writer):
        await request(reader)
        if when == "body":
            writer.write(CHUNKED + b"2\r\nhi\r\n")
        asked.set()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        left.set()

    async with talking_to(talk) as (client, _, url):
        task = asyncio.create_task(ask(client, url))
        await asked.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await left.wait()
        assert client.busy == 0


@on_both_loops
async def test_an_answer_that_nobody_reads_is_not_hoarded():
    written = 0

    async def talk(reader, writer):
        nonlocal written
        await request(reader)
        writer.write(CHUNKED)
        for _ in range(400):
            writer.write(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
            await writer.drain()
            written += 0x40000
        writer.write(b"0\r\n\r\n")

    async with talking_to(talk) as (client, _, url):
        answer = await client.post(url, b"{}", {})
        last = -1
        while written > last:  # until the server is held up
            last = written
            await asyncio.sleep(0.3)
        assert answer._exchange.held < 2 << 20
        assert written < 400 * 0x40000
        got = 0
        while piece := await answer.read_chunk():
            got += len(piece)
        assert got == 400 * 0x40000
        answer.close()


@on_both_loops
async def test_a_large_body_waits_for_a_server_that_is_slow_to_read():
    body = bytes(range(256)) * (1 << 16)
    go = asyncio.Event()

    async def talk(reader, writer):
        await go.wait()
        _, got = await request(reader)
        assert got == body
        writer.write(response(b"whole"))
        await request(reader)
        writer.write(response(b"again"))
        await reader.read()

    async with talking_to(talk) as (client, server, url):
        task = asyncio.create_task(ask(client, url, body))
        await until(lambda: server.connections == 1)
        await asyncio.sleep(0.1)
        assert not task.done()
        go.set()
        assert await task == (200, b"whole")
        assert await ask(client, url) == (200, b"again")
        assert server.connections == 1


@on_both_loops
async def test_an_answer_to_a_body_that_was_not_read_ends_the_connection():
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"

    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await writer.drain()
        await asyncio.sleep(30)

    async with talking_to(talk) as (client, server, url):
        for n in range(2):
            assert await ask(client, url, b"x" * (64 << 20)) == (413, b"no")
            assert server.connections == n + 1


@on_both_loops
async def test_beyond_the_bound_requests_take_turns():
    order, held = [], 0

    async def talk(reader, writer):
        nonlocal held
        while True:
            line, body = await request(reader)
            if line.startswith("GET"):
                writer.write(response())
                continue
            held += 1
            order.append(body)
            assert held <= 2
            await asyncio.sleep(0.01)
            held -= 1
            writer.write(response(body))

    async with talking_to(talk, most_connections=2) as (client, server, url):
        tasks = []
        for n in range(12):
            tasks.append(asyncio.create_task(ask(client, url, b"%d" % n)))
            await asyncio.sleep(0)
        tasks[4].cancel()
        # A probe is not to wait for its turn.
        assert await client.get(url, {}, seconds=10) == (200, b"")
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(done[4], asyncio.CancelledError)
        rest = [b"%d" % n for n in range(12) if n != 4]
        assert [body for _, body in (one for one in done if isinstance(one, tuple))] == rest
        assert sorted(order[:2]) == [b"0", b"1"]
        # Two at a time they may swap places with their neighbour and no more.
        assert all(abs(order.index(body) - place) <= 1 for place, body in enumerate(rest))
        assert server.connections <= 3
        assert client.busy == 0


@on_both_loops
async def test_whoever_leaves_the_queue_gives_up_his_turn_to_the_next():
    go = asyncio.Event()

    async def talk(reader, writer):
        while True:
            _, body = await request(reader)
            await go.wait()
            writer.write(response(body))

    async with talking_to(talk, most_connections=1) as (client, _, url):
        tasks = [asyncio.create_task(ask(client, url, b"%d" % n)) for n in range(4)]
        await until(lambda: client.busy == 1)
        pool = next(iter(client._pools.values()))
        await until(lambda: len(pool._turns) == 3)
        granted = pool._turns[0]
        granted.add_done_callback(lambda _: tasks[1].cancel())
        go.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, BaseException) for one in done] == [False, True, False, False]
        assert (client.busy, pool._granted) == (0, 0)
