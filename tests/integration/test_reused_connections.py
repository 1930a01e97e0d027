"""A client's kept connection: what one request left behind must not deafen the next."""

import asyncio
import json

import pytest
from aiohttp import web

from tests.integration.harness import CHAT, STREAM, model, until
from tests.integration.scripted import DONE_EVENT, chat, delta, usage


class Backend:
    """Ends its streams late, and says when a unary request was given up."""

    def __init__(self, late_seconds):
        self.late_seconds = late_seconds
        self.waiting = 0
        self.cancelled = 0

    async def __call__(self, request, seen):
        if not seen.json.get("stream"):
            return await self._wait(seen)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        words = [delta(content="Hi"), delta(finish_reason="stop")]
        await response.write(b"".join([*words, usage(), DONE_EVENT]))
        await asyncio.sleep(self.late_seconds)
        await response.write_eof()
        return response

    async def _wait(self, seen):
        self.waiting += 1
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return web.json_response(chat(seen.json["model"]))


def post(body):
    raw = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    return head % len(raw) + raw


@pytest.mark.parametrize(("late_seconds", "pipelined"), [(0.0, False), (0.15, False), (0.15, True)])
async def test_leaving_during_the_second_request_is_noticed(world, late_seconds, pipelined):
    backend = Backend(late_seconds)
    gate = await world.gate(model("phi-3-mini", await world.recorder(backend)))
    host, port = gate.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(post(STREAM))
    if not pipelined:
        await reader.readuntil(b"0\r\n\r\n")
    writer.write(post(CHAT))
    await until(lambda: backend.waiting == 1, "the second request")
    # Past the time that the gateway gives the first answer to end in.
    await asyncio.sleep(0.4)
    writer.transport.abort()
    await until(lambda: backend.cancelled == 1, "the second request to be given up", seconds=3)
    await until(lambda: gate.idle, seconds=3)
    assert await gate.metric("joulegate_client_disconnects_total") == 1
    assert await gate.metric("joulegate_requests_total", code="200") == 1
    assert await gate.metric("joulegate_requests_total", code="499") == 1


async def test_many_answers_on_one_connection(world):
    backend = Backend(0.1)
    gate = await world.gate(model("phi-3-mini", await world.recorder(backend)))
    host, port = gate.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port)
    for _ in range(5):
        writer.write(post(STREAM))
        answer = await reader.readuntil(b"0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert DONE_EVENT in answer
    writer.close()
    await until(lambda: gate.idle)
    assert await gate.metric("joulegate_requests_total", code="200") == 5
    assert await gate.metric("joulegate_client_disconnects_total") == 0
