"""A conversation goes back to the backend whose prefix cache holds it, and says so."""

import pytest

from gateway.deciding_config import LearningConfig
from tests.integration.harness import model

WORDS = " ".join(f"word{number}" for number in range(120))
OFF = {"x-joulegate-affinity": "off"}


@pytest.fixture
async def gate(world):
    """Two replicas whose caches report what they held, of a model that load does not change."""
    servers = [
        await world.simulator(
            "phi-3-mini", seed=seed, prompt_tokens_details=True, prefix_cache_tokens=100_000
        )
        for seed in range(2)
    ]
    return await world.gate(model("phi-3-mini", *servers), learning=LearningConfig())


async def talk(gate, about, turns, headers=None, path="/v1/chat/completions"):
    """Hold a conversation; return its answers."""
    said, answers = [], []
    for turn in range(turns):
        said.append({"role": "user", "content": f"{about} {turn} {WORDS}"})
        body = {"model": "auto", "messages": said, "max_tokens": 40}
        body["joulegate"] = {"explain": True}
        got = await gate.ask(body, headers or {}, path=path)
        assert got.status == 200, got.json
        answers.append(got)
        if path == "/v1/messages":
            text = got.json["content"][0]["text"]
        else:
            text = got.json["choices"][0]["message"]["content"]
        said.append({"role": "assistant", "content": text})
    return answers


def chosen_place(answer):
    """What the decision said of the backend that was asked."""
    best = answer.json["joulegate"]["candidates"][0]
    assert best["backend"] == answer.headers["x-joulegate-backend"]
    return next(place for place in best["places"] if place["backend"] == best["backend"])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_conversations_stay_where_they_are_cached(gate, path):
    await talk(gate, "the first", 1)  # from which it is known that caches are reported
    for number in range(6):
        answers = await talk(gate, f"conversation {number}", 5, path=path)
        backends = {answer.headers["x-joulegate-backend"] for answer in answers}
        assert len(backends) == 1
        assert "cached_tokens" not in chosen_place(answers[0])
        assert all(chosen_place(answer)["cached_tokens"] > 100 for answer in answers[1:])
        costs = [float(answer.headers["x-joulegate-predicted-joules"]) for answer in answers]
        assert costs[1] < 2 * costs[0]


async def test_without_affinity_the_cache_counts_for_nothing(gate):
    await talk(gate, "the first", 1)
    seen = set()
    for number in range(6):
        answers = await talk(gate, f"conversation {number}", 5, headers=OFF)
        assert all("cached_tokens" not in chosen_place(answer) for answer in answers)
        seen.add(len({answer.headers["x-joulegate-backend"] for answer in answers}))
    assert 2 in seen


async def test_a_backend_that_reports_no_cache_holds_nothing(world):
    servers = [
        await world.simulator("phi-3-mini", seed=seed, prefix_cache_tokens=100_000)
        for seed in range(2)
    ]
    gate = await world.gate(model("phi-3-mini", *servers), learning=LearningConfig())
    for number in range(3):
        answers = await talk(gate, f"conversation {number}", 4)
        assert all("cached_tokens" not in chosen_place(answer) for answer in answers)


async def test_an_ejected_holder_is_left(gate, world):
    await talk(gate, "the first", 1)
    (answer,) = await talk(gate, "conversation", 1)
    holder = next(
        one for one in world.simulators if one.url.endswith(answer.headers["x-joulegate-backend"])
    )
    holder.faults.set_fault("status", status=503)
    answers = await talk(gate, "conversation", 2)
    assert answers[-1].headers["x-joulegate-backend"] not in holder.url
