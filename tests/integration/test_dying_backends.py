"""What a dying or broken backend sends must cost that answer at most, and no background work."""

import asyncio
import json

import pytest
from aiohttp import web

from backends.client import BackendClient
from backends.gauges import GaugePoller
from backends.health import HealthProber
from backends.registry import Backend
from tests.integration.harness import CHAT, STREAM, model, until

PAGE = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 0\n"


class Dying:
    """Answers a connection's first request; while `dying`, resets it at the second."""

    def __init__(self):
        self.asked = 0
        self.dying = False
        self.resets = 0

    async def __call__(self, reader, writer):
        asked = 0
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            asked += 1
            if self.dying and asked > 1:
                self.resets += 1
                return
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(PAGE) + PAGE)
            await writer.drain()


async def test_a_reset_of_a_kept_connection_ends_no_probe_and_no_look_at_gauges(world):
    talk = Dying()
    server = await world.raw(talk)
    async with BackendClient(connect_seconds=1.0) as client:
        backend = Backend(server.url)
        times = {
            "ejected_period_seconds": 0.02,
            "healthy_period_seconds": 0.02,
            "timeout_seconds": 1.0,
        }
        work = [
            asyncio.create_task(
                GaugePoller(client, [backend], seconds=0.02, timeout_seconds=1.0).run()
            ),
            asyncio.create_task(HealthProber(client, [backend], **times).run()),
        ]
        await until(lambda: backend.running_and_queued == (3, 0), "the gauges")
        talk.dying = True
        await until(lambda: talk.resets > 3, "some resets")
        talk.dying = False
        asked = talk.asked
        await until(lambda: talk.asked > asked + 10, "work to go on")
        assert not any(task.done() for task in work)
        assert not backend.is_ejected
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def sse(request, *events):
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for event in events:
        await response.write(b"data: " + event + b"\n\n")
    return response


BAD = b'{"id":"\xff\xfe","choices":[{"delta":{"content":"b"}}]}'


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_bytes_that_are_not_utf8_before_content_are_another_backends_to_answer(world, body):
    async def answer(request, _):
        if body.get("stream"):
            return await sse(request, BAD)
        return web.Response(
            body=b'{"model":"\xff","choices":[{}]}', content_type="application/json"
        )

    broken = await world.recorder(answer)
    well = await world.simulator("mistral-7b")
    gate = await world.gate(model("phi-3-mini", broken), model("mistral-7b", well))
    got = await gate.ask(body | {"joulegate": {"weights": {"energy": 1}}})
    assert (got.status, got.headers["x-joulegate-attempts"]) == (200, "2")
    assert await gate.metric("joulegate_retries_total", reason="bad_answer") == 1


ODD = [
    {"prompt_tokens": 10**400, "completion_tokens": 10**400},
    {"prompt_tokens": 10**30, "completion_tokens": 5},
    {"prompt_tokens": -5, "completion_tokens": -1},
    {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": -9}},
    {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 10**9}},
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", ODD, ids=lambda usage: f"{usage}"[:40])
async def test_token_counts_that_cannot_be_are_ignored(world, usage, stream):
    usage = json.dumps(usage).encode()

    async def answer(request, _):
        if stream:
            content = b'{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}'
            return await sse(request, content, b'{"choices":[],"usage":' + usage + b"}", b"[DONE]")
        body = b'{"choices":[{}],"usage":' + usage + b"}"
        return web.Response(body=body, content_type="application/json")

    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend))
    got = await gate.ask(STREAM if stream else CHAT)
    assert got.status == 200
    assert got.error is None
    await until(lambda: gate.idle, "the gateway to be idle")
    record = await gate.record(got)
    assert record["code"] == 200
    assert 0 < record["observed"]["joules"] < 1e6
    assert await gate.metric("joulegate_tokens_total") < 100
    assert record["usage"]["cached_tokens"] is None


async def test_a_stream_is_as_long_as_its_backend_took(world):
    async def answer(request, _):
        response = await sse(
            request, b'{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}', b"[DONE]"
        )
        await asyncio.sleep(0.5)  # a backend that closes late
        return response

    gate = await world.gate(model("phi-3-mini", await world.recorder(answer)))
    got = await gate.ask(STREAM)
    await until(lambda: gate.idle, "the gateway to be idle")
    observed = (await gate.record(got))["observed"]
    assert 0 <= observed["serving_seconds"] < 0.2
