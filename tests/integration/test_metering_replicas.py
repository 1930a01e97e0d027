"""Two gateways that share a backend and its meter: each request's joules are what they would be."""

import asyncio
from statistics import median

import pytest

from tests.integration.harness import STREAM, metered, model, steady, until

LENGTHS = [(8 * place, 100 + 12 * place) for place in range(1, 9)]
"""Words of the prompt and tokens of the answer."""
SPEED = 4.0
AGREES = 0.1
"""In real time, on a machine that may be busy; tests/unit/lab holds it to 1% in virtual time."""


async def ask(gate, place):
    """One of the requests; returns its metered joules, and how they relate to the true ones."""
    words, tokens = LENGTHS[place]
    body = STREAM | {
        "messages": [{"role": "user", "content": " word" * words}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }
    got = await gate.ask(body, {"x-request-id": f"r{place}"})
    assert (got.status, got.error) == (200, None)

    async def final():
        record = await gate.record(got)
        return record["observed"]["joules"] is not None and record["observed"]

    observed = await until(final, f"the joules of r{place}")
    assert observed["method"] in {"exclusive", "apportioned"}
    return observed["joules"], observed["joules"] / got.chunks[-1]["simulated"]["energy_joules"]


async def run(world, replicas):
    """All requests, one after another but side by side, dealt to so many gateways."""
    simulator = await world.simulator(speed=SPEED, truth_fields=steady())
    meter = await world.meter(simulator)
    gates = [
        await world.gate(model("phi-3-mini", metered(simulator, meter))) for _ in range(replicas)
    ]
    asks = []
    for place in range(len(LENGTHS)):
        asks.append(asyncio.create_task(ask(gates[place % replicas], place)))
        await until(lambda place=place: simulator.engine.running_requests == place + 1, "it to run")
    found = await asyncio.gather(*asks)
    counted = 0.0
    for gate in gates:
        for method in ("exclusive", "apportioned", "coarse", "estimated"):
            counted += await gate.metric("joulegate_energy_joules_total", method=method)
    (ledger,) = meter.ledgers_by_name.values()
    assert counted == pytest.approx(ledger.attributed_microjoules / 1e6, rel=1e-9)
    assert counted == pytest.approx(sum(joules for joules, _ in found), rel=1e-9)
    assert (
        ledger.advanced_microjoules
        == ledger.attributed_microjoules
        + ledger.idle_microjoules
        + ledger.other_microjoules
        + ledger.unsettled_microjoules
    )
    return [ratio for _, ratio in found]


async def test_each_requests_energy_agrees_with_that_of_one_gateway(world):
    """By what each truly cost, because no two runs put quite the same into each step."""
    alone = await run(world, 1)
    shared = await run(world, 2)
    off = [abs(two / one - 1) for one, two in zip(alone, shared, strict=True)]
    # In the middle: one stream that a busy machine holds up says nothing of two gateways.
    assert median(off) < AGREES, (alone, shared)


async def test_idle_energy_is_told_to_one_of_them_only(world):
    simulator = await world.simulator(speed=1.0)
    meter = await world.meter(simulator)
    gates = [await world.gate(model("phi-3-mini", metered(simulator, meter))) for _ in range(2)]
    (ledger,) = meter.ledgers_by_name.values()

    async def idle():
        name = "joulegate_energy_joules_total"
        return sum([await gate.metric(name, method="idle") for gate in gates])

    told = await until(idle, "idle joules")
    for _ in range(3):

        async def more(told=told):
            found = await idle()
            return found > told and found

        told = await until(more, "more of them")
        # Twice the ledger's would be told if both gateways were.
        assert told <= ledger.idle_microjoules / 1e6 * (1 + 1e-9)
    assert told > ledger.idle_microjoules / 1e6 / 2
