"""Accuracy learnt online through a gateway: judgements move it, draws are labelled, it is kept."""

import asyncio
import json

import msgspec
import pytest
from typer.testing import CliRunner

from calibration.cli import app
from gateway.config import GatewayConfig, LogConfig
from gateway.deciding_config import AccuracyLearningConfig, LearningConfig
from tests.integration import harness
from tests.integration.harness import CALM, model, until

MATHS = "solve the integral equation and prove the root"
TALK = "hello friend, nice weather today"
EAGER = AccuracyLearningConfig(
    "thompson", answers_per_hour=1000.0, joules_per_hour=1e9, even_share=0.5
)


@pytest.fixture
async def make_config(world, tmp_path):
    small, large = await world.simulator(), await world.simulator("mistral-7b")

    def make(accuracy, **fields):
        return GatewayConfig(
            models=(model("phi-3-mini", small), model("mistral-7b", large)), health=CALM,
            learning=LearningConfig(state=str(tmp_path / "learnt.json"), accuracy=accuracy),
            **fields,
        )  # fmt: skip

    return make


def body(text, name="auto"):
    return {"model": name, "messages": [{"role": "user", "content": text}], "max_tokens": 2}


async def judge(gate, got, score):
    sent = {"request_id": got.headers["x-request-id"], "score": score}
    return (await gate.ask(sent, path="/v1/feedback")).json


async def find_accuracies(gate, text):
    found = (await gate.ask(body(text), path="/v1/route")).json
    return {one["model"]: one["accuracy"] for one in found["candidates"]}


async def teach(gate, requests=40):
    """phi-3-mini is wrong about mathematics and right about small talk, the other always right."""
    for at in range(requests):
        text = (MATHS, TALK)[at % 2]
        got = await gate.ask(body(text))
        wrong = got.headers["x-joulegate-model"] == "phi-3-mini" and text == MATHS
        assert (await judge(gate, got, 0.0 if wrong else 1.0))["known"] is True


async def test_nothing_is_drawn_or_shown_unless_it_is_configured(make_config):
    async with harness.serve(make_config(None)) as gate:
        got = await gate.ask(body(TALK), {"x-joulegate-explain": "true"})
        assert "exploration" not in got.json["joulegate"]
        assert "propensity" not in got.json["joulegate"]["candidates"][0]
        assert "x-joulegate-explored" not in got.headers
        assert "joulegate_exploration" not in (await gate.get("/metrics")).raw.decode()


@pytest.mark.parametrize("method", ["thompson", "linucb"])
async def test_judgements_move_the_accuracy_of_such_prompts_and_survive_a_restart(
    make_config, method
):
    config = make_config(AccuracyLearningConfig(method, 1000.0, 1e9, even_share=0.5))
    async with harness.serve(config) as gate:
        before = await find_accuracies(gate, MATHS)
        await teach(gate)
        after, talk = await find_accuracies(gate, MATHS), await find_accuracies(gate, TALK)
        assert after["phi-3-mini"] < before["phi-3-mini"] - 0.1
        assert after["mistral-7b"] > before["mistral-7b"]
        assert talk["phi-3-mini"] > after["phi-3-mini"] + 0.05
        assert await gate.metric("joulegate_accuracy_judgements_total", result="learnt") == 40
    async with harness.serve(config) as gate:
        assert await find_accuracies(gate, MATHS) == pytest.approx(after, abs=1e-4)


async def test_what_was_drawn_is_labelled_wherever_the_decision_shows(make_config, tmp_path):
    log = tmp_path / "decisions.jsonl"
    config = make_config(EAGER, log=LogConfig(decisions=str(log)))
    async with harness.serve(config) as gate:
        labelled = []
        for _ in range(24):
            got = await gate.ask(body(TALK), {"x-joulegate-explain": "true"})
            why = got.json["joulegate"]
            told, first = why["exploration"], why["candidates"][0]
            assert told["method"] == "thompson"
            assert sum(one["propensity"] for one in why["candidates"]) == pytest.approx(1.0)
            assert got.headers["x-joulegate-model"] == first["model"] == why["model"]
            assert told["explored"] is (first["deployment"] != told["greedy"])
            assert ("x-joulegate-explored" in got.headers) is told["explored"]
            labelled.append(told["explored"])
        assert True in labelled
        assert False in labelled

        def lines():
            return log.read_text().splitlines() if log.exists() else []

        await until(lambda: len(lines()) == 24, "the log")
        logged = [json.loads(line)["decision"]["exploration"]["explored"] for line in lines()]
        assert sorted(logged) == sorted(labelled)
        drawn = await gate.metric("joulegate_exploration_requests_total")
        assert drawn == sum(labelled)
        dry = (await gate.ask(body(TALK), path="/v1/route")).json
        assert dry["exploration"]["lot"] is None
        assert dry["exploration"]["explored"] is False


async def test_the_same_seed_draws_the_same_and_a_spent_budget_draws_nobody(make_config, tmp_path):
    chosen = []
    for _ in range(2):
        async with harness.serve(make_config(EAGER)) as gate:
            chosen.append(
                [(await gate.ask(body(TALK))).headers["x-joulegate-model"] for _ in range(12)]
            )
        (tmp_path / "learnt.json").unlink()
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == 2
    none = AccuracyLearningConfig("thompson", answers_per_hour=0.0, joules_per_hour=0.0)
    async with harness.serve(make_config(none)) as gate:
        why = (await gate.ask(body(TALK), path="/v1/route")).json
        assert [one["propensity"] for one in why["candidates"]] == [1.0, 0.0]


async def test_who_names_the_model_gets_it_and_teaches_nothing(make_config):
    async with harness.serve(make_config(EAGER)) as gate:
        for _ in range(4):
            got = await gate.ask(body(TALK, "mistral-7b"), {"x-joulegate-explain": "true"})
            assert got.json["model"] == "mistral-7b"
            assert "exploration" not in got.json["joulegate"]
            await judge(gate, got, 0.0)
        assert await gate.metric("joulegate_accuracy_judgements_total", result="unknown") == 4


async def test_a_profile_of_other_accuracies_begins_anew(make_config):
    async with harness.serve(make_config(EAGER)) as gate:
        await teach(gate, 20)
        learning = gate.gateway.planner.deciding.learnt.accuracy
        assert sum(learning._bandit.judged.values()) == 20
        live = gate.gateway.planner.profiles.live.profile
        learning.adopt(live)
        assert sum(learning._bandit.judged.values()) == 20
        fitted = live.models["phi-3-mini"]
        accuracy = msgspec.structs.replace(fitted.accuracy, default=0.5)
        live.models = dict(live.models) | {
            "phi-3-mini": msgspec.structs.replace(fitted, accuracy=accuracy)
        }
        learning.adopt(live)
        assert learning._bandit.judged == {}


async def test_its_log_judges_other_policies(make_config, tmp_path):
    log = tmp_path / "decisions.jsonl"
    async with harness.serve(make_config(EAGER, log=LogConfig(decisions=str(log)))) as gate:
        await teach(gate, 60)
    told = await asyncio.to_thread(CliRunner().invoke, app, ["replay", str(log), "--json"])
    assert told.exit_code == 0, told.output
    (group,) = json.loads(told.stdout)["profiles"]
    found = {one["plan"]: one for one in group["judged"]["plans"]}
    assert group["judged"]["requests"] == 60
    for plan, truth in (("always mistral-7b", 1.0), ("always phi-3-mini", 0.5)):
        for estimate in ("ips", "doubly_robust"):
            low, high = found[plan][estimate]["interval_95"]
            assert low <= truth <= high, (plan, estimate)
            assert high - low < 0.6
    assert found["as recorded"]["matched"] == 60
    shown = await asyncio.to_thread(CliRunner().invoke, app, ["replay", str(log)])
    assert "doubly robust" in shown.output
