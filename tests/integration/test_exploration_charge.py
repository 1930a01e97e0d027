"""What exploring is charged, through a gateway: once a request that is sent by its draw."""

import asyncio

import pytest

from gateway.config import LimitsConfig
from gateway.deciding_config import AccuracyLearningConfig, LearningConfig
from tests.integration.harness import CHAT, model
from tests.integration.keys import known

EAGER = AccuracyLearningConfig(
    "thompson", answers_per_hour=1000.0, joules_per_hour=1e9, even_share=0.5
)
LEARNING = LearningConfig(accuracy=EAGER)


def find_charged(gate):
    """Right answers and joules in the budget of the last hour."""
    minutes = gate.gateway.planner.deciding.learnt.accuracy._explorer.to_state()["minutes"]
    return [sum(one[1] for one in minutes), sum(one[2] for one in minutes)]


async def find_counted(gate):
    names = ("answers_lost", "energy_joules")
    return [await gate.metric(f"joulegate_exploration_{name}_total") for name in names]


async def test_who_waits_for_room_is_charged_once(world):
    small, large = await world.simulator(speed=50.0), await world.simulator("mistral-7b", speed=50)
    gate = await world.gate(
        model("phi-3-mini", small), model("mistral-7b", large),
        limits=LimitsConfig(max_running=1), learning=LEARNING,
    )  # fmt: skip
    answers = await asyncio.gather(*(gate.ask(CHAT | {"model": "auto"}) for _ in range(8)))
    assert [got.status for got in answers] == [200] * 8
    assert await gate.metric("joulegate_admission_wait_seconds_count") == 7
    assert sum(find_charged(gate)) > 0.0
    assert await find_counted(gate) == pytest.approx(find_charged(gate))


async def test_who_is_sent_elsewhere_or_nowhere_is_not_charged(world, ring):
    small, large = await world.simulator(), await world.simulator("mistral-7b")
    gate = await world.gate(
        model("phi-3-mini", small), model("mistral-7b", large),
        keys=ring.config(), learning=LEARNING,
    )  # fmt: skip
    free = await known(gate, ring.add("ads"))
    soft = await known(
        gate, ring.add("soft", budgets=[{"per": "day", "joules": 1e-6, "soft": True}])
    )
    hard = await known(gate, ring.add("hard", budgets=[{"per": "day", "joules": 1e-6}]))
    explain = {"x-joulegate-explain": "true"}
    got = await gate.ask(CHAT, free | explain)
    assert "exploration" in got.json["joulegate"]
    charged = find_charged(gate)
    assert sum(charged) > 0.0
    for _ in range(6):
        got = await gate.ask(CHAT, soft | explain)
        assert got.headers["x-joulegate-budget"].startswith("soft")
        # Which one is cheapest may change as lengths of answers are learnt.
        said = got.json["joulegate"]
        assert (
            said["model"]
            == min(said["candidates"], key=lambda one: one["predicted_joules"])["model"]
        )
        assert "exploration" not in got.json["joulegate"]
        assert (await gate.ask(CHAT, hard)).status == 429
    assert find_charged(gate) == pytest.approx(charged)
    assert await find_counted(gate) == pytest.approx(charged)
