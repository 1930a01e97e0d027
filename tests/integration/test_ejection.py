"""Backends that keep failing are ejected, cost nobody time, and are readmitted."""

import pytest
from aiohttp import web

from gateway.config import HealthConfig, RetryConfig
from tests.integration.harness import CHAT, ENERGY, STREAM, model, until
from tests.integration.scripted import plain

NEVER = 3600.0
AMPLE = RetryConfig(budget_start=10)
"""A new process could pay three retries."""


def health(**fields):
    """Five failures eject for ever, and no probe ever comes, but for what a test changes."""
    return HealthConfig(
        **{
            "probe_seconds": NEVER,
            "idle_probe_seconds": NEVER,
            "eject_seconds": NEVER,
            "eject_max_seconds": NEVER,
        }
        | fields
    )


def failing():
    """Cuts every connection, and has a switch."""

    async def answer(request, seen):
        if answer.well:
            return await plain(request, seen)
        # Half a head: what was closed without a byte would be sent once more, silently.
        request.transport.write(b"HTTP/1.1 200")
        request.transport.close()
        return web.Response()

    answer.well = False
    return answer


@pytest.mark.parametrize("body", [CHAT, STREAM, CHAT | {"model": "phi-3-mini"}])
async def test_after_five_failures_nobody_is_asked_any_more(world, body):
    backend = await world.recorder(failing())
    gate = await world.gate(model("phi-3-mini", backend), health=health())
    for k in range(5):
        assert (await gate.get("/ready")).status == 200
        assert (await gate.ask(body)).status == 503
        assert len(backend.seen) == k + 1
    assert gate.backend(backend).is_ejected
    for _ in range(3):
        got = await gate.ask(body)
        assert (got.status, got.json["error"]["code"]) == (503, "no_backend_available")
        assert (got.headers["x-should-retry"], got.headers["x-joulegate-attempts"]) == (
            "false",
            "0",
        )
        assert int(got.headers["retry-after"]) >= 1
    # At once means: without a word to the backend.
    assert len(backend.seen) == 5
    assert (await gate.get("/ready")).status == 503
    labels = {"model": "phi-3-mini", "backend": backend.url.removeprefix("http://")}
    assert await gate.metric("joulegate_backend_up", **labels) == 0
    assert await gate.metric("joulegate_backend_ejections_total", **labels) == 1
    assert await gate.metric("joulegate_exclusions_total", reason="down") == 3


async def test_an_answer_in_between_starts_the_count_anew(world):
    answer = failing()
    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend), health=health())
    for k in range(12):
        answer.well = k % 5 == 4
        assert (await gate.ask()).status == (200 if answer.well else 503)
    assert len(backend.seen) == 12
    assert not gate.backend(backend).is_ejected


async def test_the_others_go_on_and_the_ejected_one_is_excluded(world):
    bad = await world.recorder(failing())
    good = await world.recorder()
    gate = await world.gate(
        model("phi-3-mini", bad), model("mistral-7b", good), health=health(), retry=AMPLE
    )
    for _ in range(5):
        got = await gate.ask(headers=ENERGY)
        assert (got.status, got.headers["x-joulegate-attempts"]) == (200, "2")
    got = await gate.ask(headers=ENERGY | {"x-joulegate-explain": "true"})
    assert (got.headers["x-joulegate-attempts"], len(bad.seen)) == ("1", 5)
    (out,) = got.json["joulegate"]["excluded"]
    assert (out["model"], out["reason"].split(":")[0]) == ("phi-3-mini", "down")
    got = await gate.ask(CHAT | {"model": "phi-3-mini"})
    assert (got.status, len(bad.seen)) == (503, 5)
    assert (await gate.get("/ready")).json["usable_backends"] == 1


async def test_the_twin_takes_over_within_the_deployment(world):
    bad, good = await world.recorder(failing()), await world.recorder()
    gate = await world.gate(model("phi-3-mini", bad, good), health=health(), retry=AMPLE)
    for _ in range(100):
        assert (await gate.ask()).status == 200
        if gate.backend(bad).is_ejected:
            break
    assert len(bad.seen) == 5
    for _ in range(10):
        assert (await gate.ask()).headers["x-joulegate-attempts"] == "1"
    assert len(bad.seen) == 5


async def test_half_open_lets_one_through_and_a_success_closes_it(world):
    answer = failing()
    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend), health=health(eject_seconds=0.2))
    state = gate.backend(backend)
    for _ in range(5):
        await gate.ask()
    assert state.is_ejected
    await until(lambda: state.is_available, "the door to open a little")
    assert state.is_ejected
    answer.well = True
    assert (await gate.ask()).status == 200
    assert not state.is_ejected
    assert (await gate.ask()).status == 200
    assert len(backend.seen) == 7


async def test_half_open_a_failure_ejects_again_for_twice_as_long(world):
    backend = await world.recorder(failing())
    gate = await world.gate(model("phi-3-mini", backend), health=health(eject_seconds=0.1))
    state = gate.backend(backend)
    for _ in range(5):
        await gate.ask()
    for ejections in (2, 3):
        await until(lambda: state.is_available, "the door to open a little")
        assert (await gate.ask()).json["error"]["code"] == "backends_failed"
        assert state.ejections == ejections
        assert not state.is_available
    assert len(backend.seen) == 7
    assert state._half_open_at - state._clock() > 0.2


@pytest.mark.parametrize("idle_probe_seconds", [0.05, NEVER])
async def test_a_probe_brings_it_back_before_its_time(world, idle_probe_seconds):
    # "A probe each second may bring one back sooner": counted from the ejection, however rarely
    # backends that are well are probed.
    answer = failing()
    backend = await world.recorder(answer)
    gate = await world.gate(
        model("phi-3-mini", backend),
        health=health(probe_seconds=0.05, idle_probe_seconds=idle_probe_seconds),
    )
    state = gate.backend(backend)
    for _ in range(5):
        await gate.ask()
        if state.is_ejected:
            break
    assert state.ejections == 1
    answer.well = True
    await until(lambda: state.is_available, "a probe", seconds=5)
    assert (await gate.ask()).status == 200
    assert not state.is_ejected


async def test_a_backend_that_is_down_from_the_start_is_never_asked(world):
    simulator = await world.simulator()
    simulator.faults.set_fault("refuse")
    gate = await world.gate(model("phi-3-mini", simulator), health=health(probe_seconds=0.05))
    got = await gate.ask()
    assert (got.status, got.headers["x-joulegate-attempts"]) == (503, "0")
    assert (await gate.get("/ready")).status == 503
    simulator.faults.clear_faults()
    await until(lambda: gate.backend(simulator).is_available, "a probe")
    assert (await gate.ask()).status == 200
    assert (await gate.get("/ready")).status == 200


async def test_probes_alone_eject_a_backend_that_dies_idle(world):
    simulator = await world.simulator()
    gate = await world.gate(
        model("phi-3-mini", simulator),
        health=health(probe_seconds=0.05, idle_probe_seconds=0.05),
    )
    assert (await gate.ask()).status == 200
    simulator.faults.set_fault("unhealthy")
    await until(lambda: gate.backend(simulator).is_ejected, "five probes")
    assert (await gate.ask()).json["error"]["code"] == "no_backend_available"
    simulator.faults.clear_faults()
    await until(lambda: gate.backend(simulator).is_available, "a probe")
    assert (await gate.ask()).status == 200
