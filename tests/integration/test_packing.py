"""Packing through real sockets, held to the same arrivals on the lab's virtual clock; and bursts.

Answers take as long as on real GPUs; the event loop's time is virtual.
"""

import asyncio
import contextlib
import random

import pytest

from gateway.profile import save_profile
from gateway.scheduling.cost import CostQuantity
from gateway.scheduling.placement import PlacementRules, find_capacity
from tests.integration.harness import World, model, until
from tests.integration.virtual_time import run_virtually
from tests.lab import Arrival
from tests.lab.gateways import CONTEXT, LabGateways, true_costs
from tests.lab.packing import packing_fleet, run_packed

RATE, SECONDS = 2.0, 1200.0
FLEET = packing_fleet()
QWEN = FLEET.profiles["qwen"]


@contextlib.asynccontextmanager
async def serving(tmp_path, **fields):
    """Four replicas that take as long as the real ones, and a gateway with their profile."""
    path = tmp_path / "profile.json"
    save_profile({"qwen": QWEN}, path)
    async with contextlib.AsyncExitStack() as stack:
        world = World(stack)
        servers = [
            await world.simulator("qwen", speed=1.0, truth=true_costs(QWEN), seed=at)
            for at in range(4)
        ]
        models = model("qwen", *servers, context=CONTEXT)
        yield await world.gate(models, profile=str(path), **fields), servers


def body(words, *, stream=False):
    said = {"messages": [{"role": "user", "content": " ".join(["word"] * words)}]}
    wanted = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return {"model": "auto"} | said | wanted


async def read_joules(gate, servers):
    """By the simulators' own counters, idle included."""
    total = 0
    for server in servers:
        async with gate.http.get(f"{server.url}/simulator/energy") as response:
            total += (await response.json())["microjoules"]
    return total / 1e6


async def serve_traffic(tmp_path):
    """Ask twice a second; return the arrivals as they were, and the joules."""
    rng = random.Random(1)
    now = asyncio.get_running_loop().time
    arrivals, tasks = [], []
    async with serving(tmp_path) as (gate, servers):
        began, before = now(), await read_joules(gate, servers)

        async def one(words, *, stream):
            at = now() - began
            got = await gate.ask(body(words, stream=stream))
            assert got.status == 200, got.raw
            usage = (got.chunks[-1] if stream else got.json)["usage"]
            arrivals.append(Arrival(at, usage["prompt_tokens"], usage["completion_tokens"]))

        while now() < began + SECONDS:
            words, stream = rng.randint(14, 214), rng.random() < 0.1
            tasks.append(asyncio.create_task(one(words, stream=stream)))
            await asyncio.sleep(rng.expovariate(RATE))
        await asyncio.gather(*tasks)
        spent = await read_joules(gate, servers) - before
    return sorted(arrivals, key=lambda one: one.at_seconds), spent


@pytest.mark.slow
def test_sockets_and_virtual_time_spend_the_same(tmp_path):
    arrivals, spent = run_virtually(lambda: serve_traffic(tmp_path))
    packed = run_packed(arrivals, LabGateways(FLEET)).joules
    spread = run_packed(arrivals, None).joules
    assert len(arrivals) > 0.9 * RATE * SECONDS
    assert spent == pytest.approx(packed, rel=0.1)
    assert spent < 0.5 * spread


async def serve_burst(tmp_path, words):
    """Sixty at once; return what each backend was sent, requests and prompt tokens."""
    async with serving(tmp_path) as (gate, servers):
        tasks = [asyncio.create_task(gate.ask(body(words))) for _ in range(60)]
        backends = [gate.backend(server) for server in servers]
        await until(lambda: sum(backend.inflight for backend in backends) == 60, "the burst")
        sent = [backend.inflight for backend in backends]
        unread = [backend.prompt_tokens for backend in backends]
        assert {got.status for got in await asyncio.gather(*tasks)} == {200}
    return sent, unread


def test_a_burst_does_not_queue_behind_one_backend(tmp_path):
    sent, _ = run_virtually(lambda: serve_burst(tmp_path, 100))
    cost = QWEN.seconds.to_cost_function(CostQuantity.SECONDS)
    capacity = find_capacity(cost, 150.0, PlacementRules().max_slowdown)
    assert max(sent) <= capacity + 1
    assert sent[2] > 0


def test_prompts_of_a_burst_are_not_all_to_be_read_by_one_backend(tmp_path):
    sent, unread = run_virtually(lambda: serve_burst(tmp_path, 1500))
    # Beyond the bound of 16,384 tokens everywhere: to the emptiest.
    assert max(sent) - min(sent) <= 1
    assert max(unread) - min(unread) <= max(unread) / 10
