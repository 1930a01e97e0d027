"""Kept-alive connections that the backend has closed meanwhile: nobody notices."""

import asyncio
import json

import pytest

from tests.integration.harness import CHAT, STREAM, model
from tests.integration.scripted import DONE_EVENT, chat, delta, request, response

EVENTS = b"".join([delta(content="Hi"), delta(finish_reason="stop"), DONE_EVENT])


def proper(body):
    """A keep-alive answer to a request body, or to a probe."""
    if not body:
        return response()
    if json.loads(body).get("stream"):
        return response(EVENTS, "text/event-stream")
    return response(json.dumps(chat()).encode())


@pytest.mark.parametrize("body", [CHAT, STREAM])
@pytest.mark.parametrize("reset", [False, True])
async def test_closed_right_after_each_answer(world, body, reset):
    async def talk(reader, writer):
        _, sent = await request(reader)
        writer.write(proper(sent))
        await writer.drain()
        if not reset:
            writer.close()
            await writer.wait_closed()

    backend = await world.raw(talk)
    gate = await world.gate(model("phi-3-mini", backend))

    async def client():
        return [await gate.ask(body) for _ in range(20)]

    for answers in await asyncio.gather(*(client() for _ in range(10))):
        for got in answers:
            assert (got.status, got.error) == (200, None), got.raw
            assert got.headers["x-joulegate-attempts"] == "1"
    assert await gate.metric("joulegate_retries_total") == 0
    assert gate.idle


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_closed_just_as_the_next_request_is_sent(world, body):
    # The race that a timer cannot rule out: the request meets the close on its way.
    async def talk(reader, writer):
        _, sent = await request(reader)
        writer.write(proper(sent))
        await writer.drain()
        await request(reader)

    backend = await world.raw(talk)
    gate = await world.gate(model("phi-3-mini", backend))
    # After eight at once there are eight such connections for the next one to meet.
    for together in (1, 1, 8, 1, 8, 8, 1):
        for got in await asyncio.gather(*(gate.ask(body) for _ in range(together))):
            assert got.status == 200, got.raw
            assert got.headers["x-joulegate-attempts"] == "1"
    assert gate.gateway.backends[0]._failures == 0


async def test_connections_are_used_again_where_they_can_be(world):
    async def talk(reader, writer):
        while True:
            _, sent = await request(reader)
            writer.write(proper(sent))
            await writer.drain()

    backend = await world.raw(talk)
    gate = await world.gate(model("phi-3-mini", backend))
    for _ in range(10):
        assert (await gate.ask()).status == 200
        assert (await gate.ask(STREAM)).status == 200
    assert backend.connections == 1


async def test_a_broken_stream_leaves_no_connection_to_use_again(world):
    async def talk(reader, writer):
        while True:
            _, sent = await request(reader)
            if sent:
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                    b"transfer-encoding: chunked\r\n\r\n"
                )
                error = b'data: {"error":{"message":"m","code":500}}\n\n'
                for piece in (delta(content="Hi"), error):
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    await writer.drain()
                    await asyncio.sleep(0.05)
            else:
                writer.write(response())
                await writer.drain()

    backend = await world.raw(talk)
    gate = await world.gate(model("phi-3-mini", backend))
    for k in range(3):
        got = await gate.ask(STREAM)
        assert "error" in got.chunks[-1]
        assert backend.connections <= k + 2
    assert gate.runtime._client.busy == 0
