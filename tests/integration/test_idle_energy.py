"""Energy that no request answers for: idle, and other for tokens that nobody reported."""

import asyncio

import aiohttp
import pytest

from tests.integration.harness import CHAT, metered, model, spent, steady, until

NAME = "joulegate_energy_joules_total"


async def test_idle_joules_are_counted_by_model(world):
    simulators = [await world.simulator(name, speed=1.0) for name in ("phi-3-mini", "mistral-7b")]
    meter = await world.meter(*simulators)
    gate = await world.gate(*(model(one.spec.model, metered(one, meter)) for one in simulators))
    for simulator, ledger in zip(simulators, meter.ledgers_by_name.values(), strict=True):
        labels = {"model": simulator.spec.model, "method": "idle"}

        async def told(ledger=ledger, labels=labels):
            """What has been told by now was idle before, and is not far behind."""
            before = ledger.idle_microjoules / 1e6
            return before > 100 and await gate.metric(NAME, **labels) >= before - 60 * 3

        await until(told, "idle joules")
        assert 0 < await gate.metric(NAME, **labels) <= ledger.idle_microjoules / 1e6
        assert ledger.attributed_microjoules == ledger.other_microjoules == 0
    assert await gate.metric(NAME, method="idle") == await gate.metric(NAME)
    assert await gate.metric("joulegate_request_energy_joules_count") == 0


async def test_what_others_ask_of_the_backend_is_counted_as_other(world):
    """Requests that pass the gateway by, known from vLLM's own token counters."""
    simulator = await world.simulator(speed=10.0, truth_fields=steady())
    meter = await world.meter(simulator)
    gate = await world.gate(model("phi-3-mini", metered(simulator, meter)))
    (ledger,) = meter.ledgers_by_name.values()
    await until(lambda: ledger.idle_microjoules > 0, "the meter to begin")
    await asyncio.sleep(1.5)  # the counters' first poll closes no window
    body = CHAT | {"model": "phi-3-mini", "max_tokens": 200, "ignore_eos": True}
    async with aiohttp.ClientSession() as http:
        for _ in range(3):
            async with http.post(f"{simulator.url}/v1/chat/completions", json=body) as response:
                assert response.status == 200
                await response.read()
    joules = spent(simulator) / 1e6
    await until(lambda: ledger.other_microjoules / 1e6 > 0.9 * joules, "the counters' polls")
    assert ledger.other_microjoules / 1e6 < 1.1 * joules

    async def told():
        other = await gate.metric(NAME, model="phi-3-mini", method="other")
        return other == pytest.approx(ledger.other_microjoules / 1e6, rel=1e-9)

    await until(told, "the gateway to be told")
    assert ledger.attributed_microjoules == 0
    assert await gate.metric("joulegate_request_energy_joules_count") == 0
