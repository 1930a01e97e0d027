"""A model that was scaled to none: its requests wait for the first server, and no others do."""

import asyncio

import pytest

from backends.simulator.server import start_simulator
from backends.simulator.spec import SimulatorSpec
from gateway.config import BackendConfig, HealthConfig
from tests.e2e.processes import free_port
from tests.integration.harness import CHAT, STREAM, model, truth, until

PHI = CHAT | {"model": "phi-3-mini"}
HEALTH = HealthConfig(probe_seconds=0.1, idle_probe_seconds=0.1, load_seconds=3600)


def sleeping(port, seconds, name="phi-3-mini"):
    return model(name, BackendConfig(f"http://127.0.0.1:{port}"), wake_seconds=seconds)


async def wait_until_held(gate, count):
    async def is_so():
        return await gate.metric("joulegate_requests_held", model="phi-3-mini") == count

    await until(is_so, f"{count} held")


async def until_served(gate):
    async def is_so():
        return (await gate.ask(PHI)).status == 200

    await until(is_so, "an answer")


async def test_requests_wait_and_are_served_once_there_is_a_server(world):
    port = free_port()
    gate = await world.gate(sleeping(port, 60), health=HEALTH)
    assert (await gate.get("/ready")).status == 200
    asking = [asyncio.create_task(gate.ask(body)) for body in (PHI, CHAT, PHI | STREAM)]
    await wait_until_held(gate, 3)
    spec = SimulatorSpec("phi-3-mini", truth("phi-3-mini"), speed=100)
    async with await start_simulator(spec, port=port):
        for got in await asyncio.gather(*asking):
            assert (got.status, got.error) == (200, None)
        assert (await gate.record(got))["observed"]["seconds"] > 0
    await wait_until_held(gate, 0)


@pytest.mark.parametrize("body", [PHI, PHI | STREAM])
async def test_who_comes_just_after_the_last_server_went_waits_too(world, body):
    port = free_port()
    spec = SimulatorSpec("phi-3-mini", truth("phi-3-mini"), speed=100)
    # No probe takes note of its end before the request does.
    slow = HealthConfig(probe_seconds=0.1, idle_probe_seconds=3600, load_seconds=3600)
    gate = await world.gate(sleeping(port, 60), health=slow)
    async with await start_simulator(spec, port=port):
        await until_served(gate)
    asking = asyncio.create_task(gate.ask(body))
    await wait_until_held(gate, 1)
    async with await start_simulator(spec, port=port):
        got = await asking
        assert (got.status, got.error) == (200, None)
    assert {each["reason"] for each in (await gate.record(got))["attempts"][:-1]} == {"unreachable"}
    await wait_until_held(gate, 0)


async def test_auto_waits_only_where_nobody_else_can_serve(world):
    falcon = await world.simulator("falcon-7b")
    gate = await world.gate(sleeping(free_port(), 60), model("falcon-7b", falcon), health=HEALTH)
    got = await gate.ask(CHAT)
    assert got.json["model"] == "falcon-7b"
    await wait_until_held(gate, 0)


async def test_who_leaves_is_no_longer_waited_for(world):
    gate = await world.gate(sleeping(free_port(), 60), health=HEALTH)
    asking = asyncio.create_task(gate.ask(PHI))
    await wait_until_held(gate, 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await wait_until_held(gate, 0)


@pytest.mark.parametrize("seconds", [0, 0.3])
async def test_a_wait_ends(world, seconds):
    gate = await world.gate(sleeping(free_port(), seconds), health=HEALTH)
    got = await gate.ask(PHI)
    assert got.status == 503
    assert got.headers["retry-after"] == "1"
    assert (await gate.get("/ready")).status == (200 if seconds else 503)
