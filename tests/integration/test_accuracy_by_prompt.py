"""Accuracy by prompt through a gateway: who gets what, why, and what bounds are held against."""

import csv
import random

import pytest
from typer.testing import CliRunner

from calibration.cli import app
from gateway.config import GatewayConfig
from tests.integration import harness
from tests.integration.harness import CALM, UNTAUGHT, model

TALK = {
    "mathematics": ("integral derivative equation solve sum root", 0.1, 0.95),
    "chat": ("hello weather friend joke story nice", 0.95, 0.9),
}
MATHS = "Please solve the integral equation"
CHAT = "hello friend, nice weather, tell me the joke"
EXPLAIN = {"x-joulegate-explain": "true"}


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("accuracy"), random.Random(3)
    rows = folder / "rows.csv"
    with rows.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "task", "small", "large"])
        for _ in range(500):
            task = rng.choice(list(TALK))
            words, *shares = TALK[task]
            text = rng.sample(words.split(), 3) + rng.sample(["the", "please", "tell", "me"], 2)
            writer.writerow([" ".join(text), task, *(int(rng.random() < one) for one in shares)])
    out = folder / "profile.json"
    words = ["accuracy", "train", rows, "--task", "task", "--out", out]
    words += ["--label", "phi-3-mini=small", "--label", "mistral-7b=large"]
    told = CliRunner().invoke(app, [str(word) for word in words])
    assert told.exit_code == 0, told.output
    return out


@pytest.fixture
async def gate(world, profile):
    small, large = await world.simulator(), await world.simulator("mistral-7b")
    config = GatewayConfig(
        models=(model("phi-3-mini", small), model("mistral-7b", large)),
        profile=str(profile), health=CALM, learning=UNTAUGHT,
    )  # fmt: skip
    async with harness.serve(config) as served:
        yield served


async def ask(gate, text, headers=EXPLAIN):
    async with gate.sdk() as client:
        answer = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": text}], max_tokens=8,
            extra_headers=headers,
        )  # fmt: skip
    return answer, answer.model_extra.get("joulegate")


async def test_mathematics_goes_to_who_is_good_at_it_and_small_talk_to_the_cheap_one(gate):
    answer, why = await ask(gate, MATHS)
    assert answer.model == "mistral-7b"
    assert why["prompt"]["kind"] == "mathematics"
    assert why["prompt"]["known"] > 0.9
    told = {one["feature"] for one in why["prompt"]["features"]}
    assert told & {"solve", "integral", "equation"}
    accuracies = {one["model"]: one["accuracy"] for one in why["candidates"]}
    assert accuracies["mistral-7b"] - accuracies["phi-3-mini"] > 0.5
    answer, why = await ask(gate, CHAT)
    assert answer.model == "phi-3-mini"
    assert why["prompt"]["kind"] == "chat"


async def find_small(gate, *turns):
    """The small model's chance after these turns of the user's."""
    messages = [{"role": "user", "content": turns[0]}]
    for text in turns[1:]:
        messages += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": text}]
    found = (await gate.ask({"model": "auto", "messages": messages}, path="/v1/route")).json
    return {one["model"]: one["accuracy"] for one in found["candidates"]}["phi-3-mini"]


async def test_what_the_user_said_before_counts_and_what_came_last_counts_most(gate):
    again = "please tell me the"
    alone, after = await find_small(gate, again), await find_small(gate, MATHS, again)
    assert after < alone - 0.02
    assert await find_small(gate, MATHS) < after - 0.1
    assert await find_small(gate, CHAT, again) > alone
    # Of a long conversation its latest part counts.
    assert await find_small(gate, MATHS, *[CHAT] * 60, again) > alone
    assert await find_small(gate, CHAT, *[MATHS] * 60, again) < alone


async def test_a_bound_on_accuracy_is_held_against_the_lower_end(gate):
    bound = EXPLAIN | {"x-joulegate-min-accuracy": "0.6", "x-joulegate-weight-energy": "1"}
    answer, why = await ask(gate, MATHS, bound)
    assert answer.model == "mistral-7b"
    assert "min_accuracy" in why["excluded"][0]["reason"]
    found = why["candidates"][0]
    assert 0.6 <= found["accuracy_lower"] < found["accuracy"]
    answer, _ = await ask(gate, CHAT, bound)
    assert answer.model == "phi-3-mini"


async def test_words_of_a_prompt_stay_with_its_client(gate):
    got = await gate.ask(
        {"model": "auto", "messages": [{"role": "user", "content": "solve zanzibarish"}]}
    )
    kept = await gate.record(got)
    assert kept["decision"]["prompt"]["kind"] == "mathematics"
    assert "features" not in kept["decision"]["prompt"]
    assert "zanzibarish" not in str(kept)


async def test_far_from_what_was_trained_the_static_shares_stand(gate):
    _, why = await ask(gate, "xyzzy plugh frobnicate quux")
    assert why["prompt"]["known"] == 0.0
    statics = {
        place.option.model: place.option.accuracy
        for place in gate.gateway.planner.profiles.live.routed_deployments
    }
    for one in why["candidates"]:
        assert one["accuracy"] == pytest.approx(statics[one["model"]])
