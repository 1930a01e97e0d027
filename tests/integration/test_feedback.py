"""Feedback: noted with its request, kept in the decision log, and refused where it is not one."""

import json

import pytest

from gateway.config import GatewayConfig, LogConfig
from tests.integration import harness
from tests.integration.harness import CALM, CHAT, UNTAUGHT, model, until


@pytest.fixture
async def small(world):
    return await world.simulator()


async def send(gate, **body):
    return await gate.ask(body, path="/v1/feedback")


def make_config(small, log=None):
    log = log or LogConfig()
    models = (model("phi-3-mini", small),)
    return GatewayConfig(models=models, health=CALM, learning=UNTAUGHT, log=log)


@pytest.mark.parametrize("kept", ["features", "prompts", None])
async def test_a_judgement_stands_with_its_request_and_in_the_log(small, tmp_path, kept):
    path = tmp_path / "decisions.jsonl"
    log = LogConfig(decisions=str(path), **({kept: True} if kept else {}))
    async with harness.serve(make_config(small, log)) as gate:
        got = await gate.ask(CHAT)
        name = got.headers["x-request-id"]
        told = await send(gate, request_id=name, correct=False, source="judge")
        assert (told.status, told.json) == (200, {"id": name, "score": 0.0, "known": True})
        record = await gate.record(got)
        assert record["feedback"]["source"] == "judge"
        assert not {"features", "prompt"} & set(record)
        other = await send(gate, request_id="another-worker", score=0.5)
        assert other.json["known"] is False

        def lines():
            if not path.exists():
                return []
            return [json.loads(line) for line in path.read_text().splitlines()]

        await until(lambda: len(lines()) == 3, "three lines")
        request, *said = sorted(lines(), key=lambda line: "feedback" in line)
        assert [one["feedback"]["score"] for one in said] == [0.0, 0.5]
        assert ("features" in request, "prompt" in request) == (
            kept == "features", kept == "prompts",
        )  # fmt: skip
        assert ("Hello there" in path.read_text()) is (kept == "prompts")


async def test_what_is_no_feedback_is_refused(small):
    async with harness.serve(make_config(small)) as gate:
        assert (await send(gate, request_id="nobody", score=1)).status == 404
        for body in (
            {"request_id": "a"},
            {"request_id": "a", "score": 1, "correct": True},
            {"request_id": "a", "score": 1.5},
            {"request_id": "", "score": 1},
            {"request_id": "a", "score": 1, "prompt": "x"},
        ):
            assert (await send(gate, **body)).status == 400, body


async def test_frugal_takes_the_least_energy_near_the_best_or_above_a_floor(world, small):
    large = await world.simulator("mistral-7b")
    models = (model("phi-3-mini", small), model("mistral-7b", large))
    config = GatewayConfig(models=models, health=CALM, learning=UNTAUGHT)
    async with harness.serve(config) as gate:
        # phi-3-mini 0.685, mistral-7b 0.723: 3.8 points.
        body = CHAT | {"model": "auto:frugal"}
        found = (await gate.ask(body, path="/v1/route")).json
        assert found["model"] == "mistral-7b"
        assert "accuracy_within" in found["excluded"][0]["reason"]
        for headers in (
            {"x-joulegate-min-accuracy": "0.6"},
            {"x-joulegate-accuracy-within": "0.04"},
        ):
            found = (await gate.ask(body, headers, path="/v1/route")).json
            assert found["model"] == "phi-3-mini", headers
        wrong = await gate.ask(body, {"x-joulegate-accuracy-within": "1.5"})
        assert wrong.status == 400
