"""Whose fault a failure is: the request's, the backend's, or that of one model at one address."""

import asyncio

import pytest
from aiohttp import web

from gateway.config import HealthConfig, RetryConfig
from tests.integration.harness import CHAT, ENERGY, STREAM, model, until
from tests.integration.scripted import plain

QUICK = HealthConfig(probe_seconds=0.05, idle_probe_seconds=0.05, eject_after_failures=3)
TOO_LONG = (
    "This model's maximum context length is 4096 tokens. However, you requested 4150 tokens "
    "(4100 in the messages, 50 in the completion). Please reduce the length of the messages."
)
POISON = CHAT | {"user": "poison"}


def error(status, message="no"):
    return web.json_response({"error": {"message": message, "code": status}}, status=status)


async def too_long(*_):
    return error(400, TOO_LONG)


async def poisonable(request, seen):
    return error(500) if b"poison" in seen.body else await plain(request, seen)


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_context_refusal_under_auto_goes_to_a_larger_context(world, body):
    small, also_small, large = [await world.recorder(too_long) for _ in range(2)] + [
        await world.recorder()
    ]
    gate = await world.gate(
        model("phi-3-mini", small, context=4096),
        model("falcon-7b", also_small, context=2048),
        model("mistral-7b", large, context=32768),
        retry=RetryConfig(budget_start=0),
    )
    for _ in range(5):
        got = await gate.ask(body, ENERGY)
        assert (got.status, got.headers["x-joulegate-model"]) == (200, "mistral-7b")
        assert got.headers["x-joulegate-attempts"] == "2"
    assert not also_small.seen
    assert not gate.backend(small).is_ejected


async def test_a_context_refusal_that_nobody_can_mend_is_the_clients(world):
    small = await world.recorder(too_long)
    large = await world.recorder(too_long)
    gate = await world.gate(
        model("phi-3-mini", small, context=4096), model("mistral-7b", large, context=32768)
    )
    for asked, attempts in (("auto", "2"), ("phi-3-mini", "1")):
        got = await gate.ask(CHAT | {"model": asked}, ENERGY)
        assert (got.status, got.json["error"]["code"]) == (400, "context_length_exceeded")
        assert got.headers["x-joulegate-attempts"] == attempts


@pytest.mark.parametrize("asked", ["auto", "phi-3-mini"])
async def test_one_clients_poison_shuts_out_nobody(world, asked):
    first, second = await world.recorder(poisonable), await world.recorder(poisonable)
    gate = await world.gate(model("phi-3-mini", first), model("mistral-7b", second), health=QUICK)
    for _ in range(12):
        assert (await gate.ask(POISON | {"model": asked}, ENERGY)).status == 503
        assert (await gate.get("/ready")).status == 200
        assert (await gate.ask(CHAT | {"model": asked}, ENERGY)).status == 200


async def test_poison_alone_leaves_the_last_usable_one_in_use(world):
    only = await world.recorder(poisonable)
    gate = await world.gate(model("phi-3-mini", only), health=QUICK)
    for _ in range(10):
        assert (await gate.ask(POISON)).json["error"]["code"] == "backends_failed"
    assert await gate.metric("joulegate_backend_up") == 1
    assert (await gate.ask()).status == 200


async def test_one_that_fails_every_request_is_left_out_while_another_serves(world):
    async def broken(*_):
        return error(500)

    bad, good = await world.recorder(broken), await world.recorder()
    gate = await world.gate(model("phi-3-mini", bad, good), health=QUICK)
    for _ in range(60):
        assert (await gate.ask()).status == 200
    # Its /health is well all the while, which says nothing about its answers.
    assert len(bad.seen) == QUICK.eject_after_failures
    labels = {"backend": bad.url.removeprefix("http://")}
    assert await gate.metric("joulegate_backend_up", **labels) == 0


async def test_one_address_serves_several_models_and_lacks_one(world):
    async def answer(request, seen):
        if seen.json["model"] == "sql-lora":
            return error(404, "The model `sql-lora` does not exist.")
        return await plain(request, seen)

    shared, other = await world.recorder(answer), await world.recorder()
    base = {"context": 4096, "profile": "phi-3-mini"}
    gate = await world.gate(
        model("phi-3-mini", shared, **base),
        model("phi-3-sql", shared, other, served_name="sql-lora", **base),
        health=QUICK,
    )
    state = gate.backend(shared)
    assert len(gate.gateway.backends) == 2
    for _ in range(40):
        got = await gate.ask(CHAT | {"model": "phi-3-sql"})
        assert (got.status, got.json["model"]) == (200, "phi-3-sql")
        assert (await gate.ask(CHAT | {"model": "phi-3-mini"})).status == 200
    assert not state.is_ejected
    asked = [seen.json["model"] for seen in shared.seen]
    assert asked.count("sql-lora") == QUICK.eject_after_failures
    up = {"backend": state.label}
    assert await gate.metric("joulegate_backend_up", model="phi-3-mini", **up) == 1
    assert await gate.metric("joulegate_backend_up", model="phi-3-sql", **up) == 0


async def test_a_model_that_no_address_has_is_a_502(world):
    async def lacking(*_):
        return error(404, "The model `x` does not exist.")

    backend = await world.recorder(lacking)
    gate = await world.gate(model("phi-3-mini", backend), health=QUICK)
    for _ in range(6):
        got = await gate.ask()
        assert (got.status, got.json["error"]["code"]) == (502, "bad_gateway")


async def test_the_only_address_that_lacks_its_model_is_asked_until_it_has_it(world):
    async def answer(request, seen):
        if backend.has_it:
            return await plain(request, seen)
        return error(404, "The model `x` does not exist.")

    backend = await world.recorder(answer)
    backend.has_it = False
    gate = await world.gate(
        model("phi-3-mini", backend), health=HealthConfig(probe_seconds=0.05, eject_seconds=300)
    )
    up = {"model": "phi-3-mini", "backend": gate.backend(backend).label}
    for _ in range(8):
        assert (await gate.ask()).status == 502
    assert await gate.metric("joulegate_backend_up", **up) == 0
    backend.has_it = True
    for _ in range(3):
        assert (await gate.ask()).status == 200
    assert await gate.metric("joulegate_backend_up", **up) == 1


async def test_load_and_health_are_the_addresss(world):
    release = asyncio.Event()

    async def slow(request, seen):
        await release.wait()
        return await plain(request, seen)

    shared = await world.recorder(slow)
    base = {"context": 4096, "profile": "phi-3-mini"}
    gate = await world.gate(model("phi-3-mini", shared, **base), model("phi-3-sql", shared, **base))
    asked = [
        asyncio.create_task(gate.ask(CHAT | {"model": name}))
        for name in ("phi-3-mini", "phi-3-sql")
    ]
    await until(lambda: gate.backend(shared).inflight == 2)
    decision = (await gate.ask(path="/v1/route")).json
    assert {candidate["running"] for candidate in decision["candidates"]} == {2}
    release.set()
    assert [got.status for got in await asyncio.gather(*asked)] == [200, 200]


@pytest.mark.parametrize("backends", [1, 2])
async def test_a_server_that_comes_up_later_serves_a_whole_burst(world, backends):
    servers = [await world.simulator(speed=20.0) for _ in range(backends)]
    for server in servers:
        server.faults.set_fault("refuse")
    gate = await world.gate(model("phi-3-mini", *servers), health=QUICK)
    assert (await gate.get("/ready")).status == 503
    assert await gate.metric("joulegate_backend_up") == 0
    assert (await gate.ask()).status == 503
    for server in servers:
        server.faults.clear_faults()

    async def is_ready():
        return (await gate.get("/ready")).status == 200

    await until(is_ready)
    answers = await asyncio.gather(*(gate.ask() for _ in range(8)))
    assert [got.status for got in answers] == [200] * 8

    async def all_up():
        return await gate.metric("joulegate_backend_up") == backends

    # By probes alone: nothing more is asked.
    await until(all_up)
