"""Chat and completions through the gateway, as clients use them."""

import asyncio

import openai
import pytest

from gateway.deciding_config import LearningConfig
from tests.integration.harness import ACCURACY, CHAT, DONE, ENERGY, HELLO, STREAM

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What these tests ask for must not depend on what earlier ones have taught.
FLEET = {"learning": LearningConfig(enabled=False)}
HEADERS = (
    "x-request-id",
    "x-joulegate-model",
    "x-joulegate-backend",
    "x-joulegate-policy",
    "x-joulegate-score",
    "x-joulegate-predicted-seconds",
    "x-joulegate-predicted-joules",
    "x-joulegate-attempts",
    "x-joulegate-decision-us",
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


async def test_a_unary_answer_and_its_headers(fleet, gate):
    got = await gate.ask(headers=ENERGY)
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    assert got.json["model"] == got.headers["x-joulegate-model"] == "phi-3-mini"
    assert got.json["choices"][0]["message"]["content"].startswith("[simulated phi-3-mini]")
    assert got.json["usage"]["completion_tokens"] == 44
    assert "joulegate" not in got.json
    assert all(got.headers.getall(name)[0] for name in HEADERS)
    assert all(len(got.headers.getall(name)) == 1 for name in HEADERS)
    assert got.headers["x-joulegate-policy"] == "relative"
    assert got.headers["x-joulegate-attempts"] == "1"
    assert got.headers["x-joulegate-backend"] in {s.url.removeprefix("http://") for s in fleet.phi}
    assert float(got.headers["x-joulegate-score"]) == 0
    assert 0 < float(got.headers["x-joulegate-predicted-seconds"]) < 60
    assert 0 < float(got.headers["x-joulegate-predicted-joules"]) < 5000
    assert float(got.headers["x-joulegate-decision-us"]) > 0
    assert "x-joulegate-feasible" not in got.headers


async def test_a_stream_and_its_headers(gate):
    got = await gate.ask(STREAM, ENERGY)
    unary = await gate.ask(headers=ENERGY)
    assert (got.status, got.error) == (200, None)
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.headers["cache-control"] == "no-cache"
    assert all(got.headers.getall(name)[0] for name in HEADERS)
    assert got.events[-1] == DONE
    assert got.text == unary.json["choices"][0]["message"]["content"]
    assert b'"usage"' not in got.raw
    assert all(chunk["choices"] for chunk in got.chunks)


async def test_usage_of_a_stream_is_there_when_asked_for_and_known_either_way(gate):
    asked = await gate.ask(STREAM | {"stream_options": {"include_usage": True}}, ENERGY)
    last = asked.chunks[-1]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 44)
    silent = await gate.ask(STREAM, ENERGY)
    for got in (asked, silent):
        assert (await gate.record(got))["usage"]["completion_tokens"] == 44
    every = await gate.ask(
        STREAM | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}, ENERGY
    )
    assert [c["usage"]["completion_tokens"] for c in every.chunks][-3:] == [43, 44, 44]


@pytest.mark.parametrize("stream", [False, True])
async def test_completions(gate, stream):
    body = {"model": "auto:accuracy", "prompt": "Once upon a time", "max_tokens": 7}
    got = await gate.ask(body | {"stream": stream}, path="/v1/completions")
    assert (got.status, got.headers["x-joulegate-model"]) == (200, "mistral-7b")
    if stream:
        assert got.events[-1] == DONE
        assert len(got.chunks) == 7
        assert {c["object"] for c in got.chunks} == {"text_completion"}
    else:
        assert got.json["object"] == "text_completion"
        assert got.json["usage"]["completion_tokens"] == 7
    batch = body | {"prompt": ["a", "b"], "n": 2}
    assert len((await gate.ask(batch, path="/v1/completions")).json["choices"]) == 4
    ids = body | {"prompt": [1, 2, 3, 4, 5, 6, 7, 8, 9]}
    got = await gate.ask(ids, path="/v1/completions")
    assert (await gate.record(got))["decision"]["tokens"]["input"] == 9


async def test_a_concrete_name_stays_with_its_model(gate):
    for name in ("phi-3-mini", "mistral-7b", "falcon-7b"):
        for headers in (ENERGY, ACCURACY):
            got = await gate.ask(CHAT | {"model": name}, headers)
            assert (got.json["model"], got.headers["x-joulegate-policy"]) == (name, "none")


async def test_explain_is_a_member_of_a_unary_answer(gate):
    got = await gate.ask(headers=ENERGY | {"x-joulegate-explain": "true"})
    check_explained(got.json["joulegate"], got)
    assert got.json["choices"]
    assert got.headers["content-length"] == str(len(got.raw))


@pytest.mark.parametrize("usage", [False, True])
async def test_explain_is_the_last_chunk_of_a_stream(gate, usage):
    got = await gate.ask(
        STREAM | {"stream_options": {"include_usage": usage}, "joulegate": {"explain": True}},
        ENERGY,
    )
    assert got.events[-1] == DONE
    *rest, last = got.chunks
    assert not any("joulegate" in chunk for chunk in rest)
    assert last["choices"] == []
    for name in ("id", "object", "created", "model"):
        assert last[name] == rest[0][name]
    check_explained(last["joulegate"], got)


def check_explained(shown, got):
    assert set(shown) == {
        "id", "model", "policy", "weights", "tokens", "score", "profile_version",
        "reference_load", "decision_us",
        "candidates", "excluded", "feasible", "predicted", "observed",
    }  # fmt: skip
    assert shown["predicted"]["joules"] == shown["candidates"][0]["predicted_joules"]
    assert shown["predicted"]["seconds"] == shown["candidates"][0]["predicted_seconds"]
    assert shown["observed"] == {"joules": None, "method": None}
    assert shown["id"] == got.headers["x-request-id"]
    assert shown["model"] == "phi-3-mini"
    assert shown["weights"] == {"accuracy": 0, "energy": 1, "time": 0}
    assert [c["model"] for c in shown["candidates"]] == ["phi-3-mini", "mistral-7b", "falcon-7b"]
    for candidate in shown["candidates"]:
        assert set(candidate) == {
            "model", "deployment", "score", "accuracy", "predicted_seconds", "predicted_joules",
            "reference_joules", "tokens", "costs", "terms", "backend", "running", "queued",
            "places",
        }  # fmt: skip
        for name, weight in shown["weights"].items():
            assert candidate["terms"][name] == pytest.approx(weight * candidate["costs"][name])
        assert candidate["score"] == pytest.approx(sum(candidate["terms"].values()))
    best = shown["candidates"][0]
    for name, value in (
        ("score", best["score"]),
        ("predicted-seconds", best["predicted_seconds"]),
        ("predicted-joules", best["predicted_joules"]),
    ):
        assert float(got.headers[f"x-joulegate-{name}"]) == pytest.approx(value, rel=1e-5)


async def test_tools_need_a_model_that_has_them(gate):
    body = CHAT | {"tools": [WEATHER], "joulegate": {"explain": True}}
    got = await gate.ask(body, ENERGY)
    assert got.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "get_weather"
    (out,) = got.json["joulegate"]["excluded"]
    assert out == {
        "model": "falcon-7b",
        "deployment": "falcon-7b",
        "reason": "capability: does not offer tools",
    }
    # Whoever names a model gets that model's own answer.
    got = await gate.ask(body | {"model": "falcon-7b"})
    assert got.status == 400
    assert "tool-call-parser" in got.json["error"]["message"]


async def test_the_python_sdk(gate):
    async with gate.sdk() as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(
            model="auto",
            messages=HELLO,
            extra_headers=ENERGY,
            extra_body={"joulegate": {"explain": True}},
        )
        answer = raw.parse()
        assert answer._request_id == raw.headers["x-request-id"]
        assert answer.model == raw.headers["x-joulegate-model"] == "phi-3-mini"
        assert answer.model_extra["joulegate"]["model"] == "phi-3-mini"
        words, usages = [], []
        async for chunk in await sdk.chat.completions.create(
            model="auto",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"joulegate": {"weights": {"accuracy": 1}}},
        ):
            assert chunk.model == "mistral-7b"
            words += [choice.delta.content or "" for choice in chunk.choices]
            usages += [chunk.usage] if chunk.usage else []
        assert "".join(words).startswith("[simulated mistral-7b]")
        assert [usage.completion_tokens for usage in usages] == [44]
        answer = await sdk.chat.completions.create(model="auto", messages=HELLO, tools=[WEATHER])
        assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city":"simulated"}'
        text = await sdk.completions.create(model="auto:time", prompt="a", max_tokens=4, logprobs=1)
        assert (text.model, len(text.choices[0].logprobs.tokens)) == ("phi-3-mini", 4)


async def test_the_synchronous_sdk(gate):
    def ask():
        with openai.OpenAI(base_url=f"{gate.url}/v1", api_key="x", max_retries=0) as sdk:
            whole = sdk.chat.completions.create(model="auto", messages=HELLO)
            with sdk.chat.completions.create(model="auto", messages=HELLO, stream=True) as stream:
                words = [c.choices[0].delta.content or "" for c in stream if c.choices]
            return whole.choices[0].message.content, "".join(words)

    whole, streamed = await asyncio.to_thread(ask)
    assert whole == streamed != ""
