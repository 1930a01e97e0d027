"""What a request held is free again when it has been answered, with no collection's help."""

import asyncio
import gc
import json
import types

import pytest
from aiohttp import web

from backends.sse import DONE_EVENT
from gateway.config import LimitsConfig, RetryConfig
from gateway.service.request.inference_request import InferenceRequest
from tests.integration.harness import CHAT, STREAM, model, until
from tests.integration.scripted import chat, delta, stream, usage

LARGE = {"model": "phi-3-mini", "messages": [{"role": "user", "content": "word " * 50_000}]}
"""By the model's own name, so that it is sent whatever its context."""


def failing(kind):
    """A backend that fails in one way or another."""

    async def answer(request, seen):
        if kind == "503":
            error = {"error": {"message": "busy", "code": 503}}
            return web.json_response(error, status=503)
        if kind == "400":
            return web.json_response({"error": {"message": "no", "code": 400}}, status=400)
        if kind == "HTML":
            return web.Response(text="<html>", content_type="text/html")
        if kind == "dies":
            request.transport.abort()
        if kind == "breaks" and seen.json.get("stream"):
            return await stream(request, delta(content="Hi"), whole=False)
        if kind == "breaks":
            response = web.StreamResponse(headers={"content-length": "1000"})
            await response.prepare(request)
            await response.write(b"{")
            request.transport.abort()
            return response
        return web.json_response(chat(seen.json["model"]))

    return answer


OURS = ("gateway.service", "gateway.api.incoming", "gateway.api.inference", "backends")
"""Not the server's side of a closed connection, whose transport asyncio ties to it."""


def origin(thing):
    """Where something comes from: its class's module, or a frame's own and its function."""
    if isinstance(thing, types.FrameType):
        return f"{thing.f_globals['__name__']}: {thing.f_code.co_name}"
    return f"{type(thing).__module__}.{type(thing).__name__}"


@pytest.mark.parametrize("body", [CHAT, STREAM])
@pytest.mark.parametrize("kind", ["503", "400", "HTML", "dies", "breaks", "well"])
async def test_a_request_that_is_over_leaves_no_cycle(world, kind, body):
    backends = [await world.recorder(failing(kind)) for _ in range(2)]
    gate = await world.gate(
        model("phi-3-mini", *backends), retry=RetryConfig(max_attempts=2, budget_start=10)
    )
    assert (await gate.ask(body | LARGE)).headers["x-joulegate-attempts"] in ("1", "2")
    assert backends[0].seen or backends[1].seen
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(3):
            await gate.ask(body | LARGE)
        await until(lambda: gate.idle)
        await asyncio.sleep(0)
        gc.collect()
        left = {origin(one) for one in gc.garbage}
    finally:
        gc.garbage.clear()
        gc.set_debug(0)
        gc.enable()
    assert not {name for name in left if name.startswith(OURS)}


async def test_a_stream_does_not_keep_its_requests_body(world):
    begun, go = asyncio.Event(), asyncio.Event()

    async def answer(request, _):
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await response.write(delta(content="Hi"))
        begun.set()
        await go.wait()
        for piece in (delta(finish_reason="stop"), usage(), DONE_EVENT):
            await response.write(piece)
        return response

    def held():
        return [one for one in gc.get_objects() if isinstance(one, InferenceRequest)]

    gate = await world.gate(model("phi-3-mini", await world.recorder(answer)))
    asked = asyncio.create_task(gate.ask(STREAM | LARGE))
    await begun.wait()
    await until(lambda: not any(one.members or one.words for one in held()))
    assert gate.gateway.inflight_requests == len(held()) == 1
    go.set()
    assert ((await asked).status, (await asked).text) == (200, "Hi")


async def test_bodies_over_the_budget_are_refused_until_there_is_room(world):
    go = asyncio.Event()

    async def answer(_, seen):
        await go.wait()
        return web.json_response(chat(seen.json["model"]))

    size = len(json.dumps(CHAT | LARGE))
    gate = await world.gate(
        model("phi-3-mini", await world.recorder(answer)),
        # An eighth is for what is small.
        limits=LimitsConfig(max_bytes_in_flight=(2 * size + 5000) * 8 // 7),
    )
    waiting = [asyncio.create_task(gate.ask(CHAT | LARGE)) for _ in range(2)]
    budget = gate.gateway.dispatcher.bytes_in_flight
    await until(lambda: budget.held == 2 * size)
    got = await gate.ask(CHAT | LARGE)
    assert (got.status, got.json["error"]["code"]) == (503, "over_capacity")
    assert got.headers["retry-after"] == "1"
    small = asyncio.create_task(gate.ask(CHAT))
    await until(lambda: gate.gateway.inflight_requests == 3)
    go.set()
    assert [(await one).status for one in (*waiting, small)] == [200, 200, 200]
    assert budget.held == 0
    assert (await gate.ask(CHAT | LARGE)).status == 200


async def test_answers_count_too(world):
    async def answer(_, seen):
        return web.json_response(chat(seen.json["model"], content="x" * 100_000))

    gate = await world.gate(
        model("phi-3-mini", await world.recorder(answer)),
        limits=LimitsConfig(max_bytes_in_flight=50_000),
    )
    got = await gate.ask(CHAT)
    assert (got.status, got.json["error"]["code"]) == (503, "over_capacity")
    assert gate.gateway.dispatcher.bytes_in_flight.held == 0
    assert gate.idle
