"""The simulated vLLM's generative scoring, structured decisions and Cohere chat, by name."""

import json

import pytest

from tests.integration.harness import model

CHAT = {"model": "phi-3-mini", "messages": [{"role": "user", "content": "Hello there"}]}


@pytest.fixture
async def gate(world):
    return await world.gate(model("phi-3-mini", await world.simulator()))


async def test_items_are_scored_by_the_next_token(gate):
    ask = {
        "model": "phi-3-mini",
        "query": "Is it? ",
        "items": ["a", "b"],
        "label_token_ids": [1, 2],
    }
    got = (await gate.ask(ask, path="/generative_scoring")).json
    assert [one["index"] for one in got["data"]] == [0, 1]
    assert all(0 < one["score"] < 1 for one in got["data"])
    assert got["usage"]["completion_tokens"] == 2
    again = (await gate.ask(ask, path="/generative_scoring")).json
    assert again["data"] == got["data"]
    assert (await gate.ask(ask | {"items": []}, path="/generative_scoring")).status == 400


async def test_questions_about_a_state_are_answered(gate):
    questions = {
        "which": {"type": "choice", "criteria": {"red": None, "blue": "as the sky"}},
        "is it": {"type": "noul"},
        "how much": {"type": "score", "criteria": ["low", "middle", "high"]},
    }
    ask = {"model": "phi-3-mini", "state": {"a": 1}, "questions": questions}
    got = (await gate.ask(ask, path="/v1/systemone")).json
    answers = got["answers"]
    assert answers["which"]["choice"] in {"red", "blue"}
    assert 0 < answers["is it"]["noul"] < 1
    assert 0 <= answers["how much"]["score"] <= 2
    for answer in answers.values():
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0)
    assert got["usage"]["output_tokens"] == 3
    for wrong in ({"type": "choice"}, {"type": "score", "criteria": ["one"]}, {"type": "what"}):
        got = await gate.ask(ask | {"questions": {"x": wrong}}, path="/v1/systemone")
        assert got.status == 400


async def test_a_cohere_chat_streamed_and_not(gate):
    whole = (await gate.ask(CHAT | {"max_tokens": 5}, path="/cohere/v2/chat")).json
    (content,) = whole["message"]["content"]
    assert (whole["finish_reason"], whole["usage"]["tokens"]["output_tokens"]) == ("MAX_TOKENS", 5)
    ask = CHAT | {"max_tokens": 5, "stream": True}
    got = await gate.ask(ask, path="/cohere/v2/chat")
    assert got.events[-1] == b"[DONE]"
    events = [json.loads(event) for event in got.events[:-1]]
    words = [e["delta"]["message"]["content"]["text"] for e in events if "delta" in e["type"]]
    assert "".join(words) == content["text"]
    assert [events[0]["type"], events[-1]["type"]] == ["message-start", "message-end"]
    assert (await gate.ask(CHAT | {"tools": [{}]}, path="/cohere/v2/chat")).status == 400
