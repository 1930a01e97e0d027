"""Limits on what is served at once, on answers and on their tokens."""

import asyncio

import msgspec
import pytest
from aiohttp import web

from gateway.config import LimitsConfig
from tests.integration.harness import CHAT, ENDLESS, STREAM, model, until
from tests.integration.scripted import chat

MANY = CHAT | {"max_tokens": 20, "ignore_eos": True}


async def test_the_gateway_serves_so_many_at_once_and_the_others_wait(world):
    simulator = await world.simulator(speed=50.0)
    gate = await world.gate(model("phi-3-mini", simulator), limits=LimitsConfig(max_running=2))
    backend, most = gate.backend(simulator), 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, backend.inflight)
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(*(gate.ask(MANY) for _ in range(12)))
    watching.cancel()
    assert [got.status for got in answers] == [200] * 12
    assert most == 2
    assert await gate.metric("joulegate_admission_wait_seconds_count") == 10
    assert await gate.metric("joulegate_admission_running_requests") == 0
    assert await gate.metric("joulegate_admission_limit_requests") == 2


async def test_beyond_the_queue_it_is_429_with_a_time(world):
    simulator = await world.simulator(speed=1.0)
    limits = LimitsConfig(max_running=1, max_queued=1)
    gate = await world.gate(model("phi-3-mini", simulator), limits=limits)
    tasks = [asyncio.create_task(gate.ask(STREAM | ENDLESS))]
    await until(lambda: gate.backend(simulator).inflight == 1, "the first")
    tasks.append(asyncio.create_task(gate.ask(STREAM | ENDLESS)))
    await until(lambda: gate.gateway.gate.admission.waiting == 1, "the second")
    refused = await gate.ask()
    assert refused.status == 429
    assert refused.json["error"]["code"] == "gateway_busy"
    assert int(refused.headers["retry-after"]) >= 1
    assert "x-should-retry" not in refused.headers
    assert await gate.metric("joulegate_admission_refused_requests_total") == 1
    # who leaves while it waits is gone, and who is served takes its place along
    tasks[1].cancel()
    await until(lambda: gate.gateway.gate.admission.waiting == 0, "the second to have left")
    tasks[0].cancel()
    await until(lambda: gate.gateway.gate.admission.running == 0, "the first to have left")
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_sdk_that_would_not_read_for_so_long_is_told_at_once(world):
    simulator = await world.simulator(speed=1.0)
    gate = await world.gate(model("phi-3-mini", simulator), limits=LimitsConfig(max_running=1))
    gate.gateway.gate.admission._answers.add_answer(30.0)
    running = asyncio.create_task(gate.ask(STREAM | ENDLESS))
    await until(lambda: gate.backend(simulator).inflight == 1, "the first")
    refused = await gate.ask(headers={"x-stainless-read-timeout": "20"})
    assert refused.status == 429
    waiting = asyncio.create_task(gate.ask(headers={"x-stainless-read-timeout": "600"}))
    await until(lambda: gate.gateway.gate.admission.waiting == 1, "the one that reads for longer")
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    await until(lambda: gate.idle, "the end")


async def test_a_full_deployment_leaves_it_to_the_next_best_or_is_waited_for(world):
    phi, mistral = await world.simulator(speed=20.0), await world.simulator("mistral-7b")
    gate = await world.gate(
        model("phi-3-mini", phi),
        model("mistral-7b", mistral, max_running=1),
    )
    accurate = {"model": "auto:accuracy"}
    first = asyncio.create_task(gate.ask(MANY | accurate | {"max_tokens": 400}))
    await until(lambda: gate.backend(mistral).inflight == 1, "the first")
    second = await gate.ask(MANY | accurate | {"joulegate": {"explain": True}})
    assert second.json["model"] == "phi-3-mini"
    (out,) = second.json["joulegate"]["excluded"]
    assert out["reason"].startswith("full: ")
    # who names it waits for it
    named = await gate.ask(MANY | {"model": "mistral-7b"})
    assert (named.status, named.json["model"]) == (200, "mistral-7b")
    assert (await first).json["model"] == "mistral-7b"
    (room,) = (one.room for one in gate.gateway.deployments if one.room)
    assert (room.running, room.promised) == (0, 0)


async def test_caps_on_answers_and_tokens(world):
    recorder = await world.recorder()
    limits = LimitsConfig(max_answers=2, max_output_tokens=100)
    gate = await world.gate(model("phi-3-mini", recorder), limits=limits)
    for over, param in (
        ({"n": 3}, "n"),
        ({"max_tokens": 101}, "max_tokens"),
        ({"max_completion_tokens": 1000}, "max_completion_tokens"),
    ):
        got = await gate.ask(CHAT | over)
        assert (got.status, got.json["error"]["param"]) == (400, param)
    completions = {"model": "phi-3-mini", "prompt": "Hi", "best_of": 3}
    assert (await gate.ask(completions, path="/v1/completions")).status == 400
    assert recorder.seen == []
    await gate.ask(CHAT | {"n": 2, "max_tokens": 100})
    assert "max_completion_tokens" not in recorder.seen[-1].json
    # without a limit of its own an answer gets the cap
    await gate.ask(CHAT)
    assert recorder.seen[-1].json["max_completion_tokens"] == 100


@pytest.mark.parametrize(
    ("path", "body", "within", "limit"),
    [
        ("/v1/chat/completions/batch", {"messages": []}, None, "max_completion_tokens"),
        ("/cohere/v2/chat", {"messages": []}, None, "max_tokens"),
        ("/inference/v1/generate", {"token_ids": [1]}, "sampling_params", "max_tokens"),
    ],
)
async def test_the_caps_hold_where_a_model_is_asked_by_name(world, path, body, within, limit):
    recorder = await world.recorder()
    limits = LimitsConfig(max_answers=2, max_output_tokens=100)
    gate = await world.gate(model("phi-3-mini", recorder), limits=limits)

    async def ask(**asked):
        asked = asked if within is None else {within: asked}
        return await gate.ask({"model": "phi-3-mini"} | body | asked, path=path)

    for name, over in ((limit, 101), ("max_tokens", "101"), ("n", 3)):
        got = await ask(**{name: over})
        param = name if within is None else f"{within}.{name}"
        assert (got.status, got.json["error"]["param"]) == (400, param)
    assert recorder.seen == []
    await ask(max_tokens=99, seed=7)
    sent = recorder.seen[-1].json
    sent = sent if within is None else sent[within]
    assert (sent["max_tokens"], sent["seed"]) == (99, 7)
    await ask()
    sent = recorder.seen[-1].json
    assert (sent if within is None else sent[within])[limit] == 100


async def test_without_limits_there_is_no_gate(world):
    gate = await world.gate(model("phi-3-mini", await world.simulator()))
    assert gate.gateway.gate is None
    assert (await gate.ask()).status == 200


@pytest.mark.parametrize("bad", [{"max_running": 0}, {"max_queued": -1}, {"max_answers": 0}])
def test_limits_are_checked(bad):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, LimitsConfig)


async def test_keys_that_wait_take_turns_and_their_priority_counts(world, ring):
    order = []

    async def answer(_, seen):
        order.append(seen.json["user"])
        await asyncio.sleep(0.01)
        return web.json_response(chat(seen.json["model"]))

    big, small, first = ring.add("big"), ring.add("small"), ring.add("first", priority=5)
    gate = await world.gate(
        model("phi-3-mini", await world.recorder(answer)),
        limits=LimitsConfig(max_running=1),
        keys=ring.config(),
    )
    admission = gate.gateway.gate.admission
    asked = [("a0", big), ("a1", big), ("a2", big), ("a3", big), ("b1", small), ("c1", first)]
    await admission.enter("nobody's")
    tasks = []
    for number, (user, key) in enumerate(asked):
        tasks.append(asyncio.create_task(gate.ask(CHAT | {"user": user}, key)))
        await until(lambda count=number: admission.waiting == count + 1, user)
    admission.leave("nobody's")
    assert {(await task).status for task in tasks} == {200}
    assert order == ["c1", "a0", "b1", "a1", "a2", "a3"]
