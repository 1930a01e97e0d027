"""What others put on a backend, and what a burst puts there, counts in the next decision."""

import asyncio

from gateway.config import HealthConfig
from tests.integration.harness import CHAT, ENDLESS, STREAM, model, until

LOOKING = HealthConfig(idle_probe_seconds=3600, probe_seconds=3600, load_seconds=0.05)


async def candidates(gate):
    """The candidates of a dry run, by model."""
    shown = (await gate.ask(path="/v1/route")).json
    return {candidate["model"]: candidate for candidate in shown["candidates"]}


async def test_the_load_of_another_gateway_is_seen(world):
    phi = await world.simulator("phi-3-mini", speed=1.0)
    one = await world.gate(model("phi-3-mini", phi), health=LOOKING)
    other = await world.gate(model("phi-3-mini", phi), health=LOOKING)
    streams = [asyncio.create_task(other.ask(STREAM | ENDLESS)) for _ in range(5)]
    await until(lambda: phi.engine.running_requests == 5, "the other's streams")

    async def seen():
        return (await candidates(one))["phi-3-mini"]["running"] == 5

    await until(seen, "the gauges to be read")
    # Its own are not counted twice.
    assert (await candidates(other))["phi-3-mini"]["running"] == 5
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)

    async def gone():
        return (await candidates(one))["phi-3-mini"]["running"] == 0

    await until(gone, "the gauges to be read")


async def test_what_waits_in_vllm_costs_time(world):
    phi = await world.simulator("phi-3-mini", speed=1.0, truth_fields={"max_num_seqs": 2})
    gate = await world.gate(model("phi-3-mini", phi), health=LOOKING)
    idle = (await candidates(gate))["phi-3-mini"]
    assert (idle["running"], idle["queued"]) == (0, 0)
    streams = [asyncio.create_task(gate.ask(STREAM | ENDLESS)) for _ in range(8)]

    async def queued():
        found = (await candidates(gate))["phi-3-mini"]
        return found if (found["running"], found["queued"]) == (2, 6) else None

    busy = await until(queued, "the queue to be seen")
    # Additive: the same alone or in company, and then three turns of two ahead of it.
    assert busy["predicted_seconds"] == 4 * idle["predicted_seconds"]
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


async def test_a_burst_in_one_instant_does_not_see_an_idle_backend(world):
    phis = [await world.simulator("phi-3-mini", speed=50.0) for _ in range(2)]
    gate = await world.gate(model("phi-3-mini", *phis))
    ask = {"joulegate": {"explain": True}}
    answers = await asyncio.gather(*(gate.ask(CHAT | ask) for _ in range(40)))
    seen = sorted(got.json["joulegate"]["candidates"][0]["running"] for got in answers)
    # Twenty on each of the two, and each of them met one more than the one before it.
    assert seen == sorted([*range(20), *range(20)])
    records = [await gate.record(got) for got in answers]
    assert {record["code"] for record in records} == {200}
