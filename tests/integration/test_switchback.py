"""A switchback through real sockets: who answers in which block, and what each arm is counted."""

import time

from gateway.experiment_config import BaselineConfig, ExperimentConfig
from gateway.scheduling.switchback import BASELINE, TREATMENT
from tests.integration.harness import CHAT, metered, model, until

DAY_MINUTES = 1440.0


def given(arm, washout_seconds=0.0):
    """An experiment whose block of this day is of that arm."""
    for seed in range(50):
        found = ExperimentConfig(
            "eco", BaselineConfig(model="mistral-7b"), DAY_MINUTES, washout_seconds, seed
        )
        blocks = found.make_switchback()
        if blocks.arm_in_force(time.time()) == arm:
            return found
    raise AssertionError


async def arms_of(gate, name, **labels):
    return {
        arm: await gate.metric(f"joulegate_experiment_{name}", arm=arm, **labels)
        for arm in (BASELINE, TREATMENT)
    }


async def start(world, experiment):
    simulators = [await world.simulator(name) for name in ("phi-3-mini", "mistral-7b")]
    meter = await world.meter(*simulators)
    models = [model(one.spec.model, metered(one, meter)) for one in simulators]
    return await world.gate(*models, experiment=experiment)


async def test_a_baseline_of_one_model_answers_in_its_blocks_and_is_counted(world):
    gate = await start(world, given(BASELINE))
    body = CHAT | {"model": "auto:energy", "max_tokens": 5}
    answers = [await gate.ask(body) for _ in range(5)]
    # Weights would have chosen phi-3-mini.
    assert {one.json["model"] for one in answers} == {"mistral-7b"}
    other = await gate.ask(CHAT | {"model": "phi-3-mini", "max_tokens": 5})
    assert other.json["model"] == "phi-3-mini"  # named by its client: no part of it

    async def settled():
        return (await arms_of(gate, "energy_joules_total", kind="request"))[BASELINE] > 0

    await until(settled, "the joules")
    assert await arms_of(gate, "requests_total") == {BASELINE: 5, TREATMENT: 0}
    assert await arms_of(gate, "tokens_total", type="completion") == {BASELINE: 25, TREATMENT: 0}
    assert await arms_of(gate, "arm") == {BASELINE: 1, TREATMENT: 0}
    record = await gate.record(answers[0])
    assert record["arm"] == BASELINE


async def test_what_no_meter_measured_is_told_apart(world):
    simulators = [await world.simulator(name) for name in ("phi-3-mini", "mistral-7b")]
    models = [model(one.spec.model, one) for one in simulators]
    gate = await world.gate(*models, experiment=given(TREATMENT))
    await gate.ask(CHAT | {"model": "auto:energy", "max_tokens": 5})

    async def counted():
        return (await arms_of(gate, "energy_joules_total", kind="request"))[TREATMENT] > 0

    await until(counted, "the joules")
    spent = (await arms_of(gate, "energy_joules_total", kind="request"))[TREATMENT]
    estimated = await arms_of(gate, "estimated_energy_joules_total")
    assert estimated == {BASELINE: 0, TREATMENT: spent}


async def test_the_treatment_is_the_configuration_as_it_stands(world):
    gate = await start(world, given(TREATMENT))
    answer = await gate.ask(CHAT | {"model": "auto:energy", "max_tokens": 5})
    assert answer.json["model"] == "phi-3-mini"
    assert await arms_of(gate, "requests_total") == {BASELINE: 0, TREATMENT: 1}


async def test_a_washout_is_served_by_its_arm_and_counts_for_nobody(world):
    washout = DAY_MINUTES * 60.0 - 1.0
    gate = await start(world, given(BASELINE, washout))
    answer = await gate.ask(CHAT | {"model": "auto:energy", "max_tokens": 5})
    assert answer.json["model"] == "mistral-7b"
    assert await arms_of(gate, "requests_total") == {BASELINE: 0, TREATMENT: 0}
