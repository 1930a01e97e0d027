"""What the gateway tells about its choice: headers, the explain object, models, dry runs."""

import asyncio

import httpx
import pytest

from tests.e2e.fleet import FLEET
from tests.e2e.processes import total
from tests.e2e.watch import eventually

HELLO = [{"role": "user", "content": "Hello"}]
# Leaves the three models of the shipped profile; SmolLM2 is the cheapest of all in this one.
THREE = {"x-joulegate-min-accuracy": "0.6"}
DECISION = {"id", "model", "policy", "weights", "tokens", "score", "profile_version"} | {
    "decision_us",
    "candidates",
    "excluded",
    "feasible",
    "reference_load",
}


def weights(**given):
    return {f"x-joulegate-weight-{name}": str(value) for name, value in given.items()}


async def ask(client, model="auto", headers=None, **more):
    raw = await client.chat.completions.with_raw_response.create(
        model=model, messages=HELLO, max_tokens=4, extra_headers=headers, **more
    )
    return raw.parse(), raw.headers


@pytest.mark.parametrize("policy", ["relative", "fair-ols", "hybrid"])
@pytest.mark.parametrize(
    ("headers", "chosen"),
    [
        (weights(accuracy=1), "mistral-7b"),
        (weights(energy=1), "smollm2-135m"),
        (weights(energy=1) | THREE, "phi-3-mini"),
        (weights(time=1) | THREE, "phi-3-mini"),
        (weights(accuracy=0.9, energy=0.1) | THREE, "mistral-7b"),
    ],
)
async def test_headers_steer(client, headers, chosen, policy):
    answer, seen = await ask(client, headers=headers | {"x-joulegate-policy": policy})
    assert answer.model == seen["x-joulegate-model"] == chosen
    assert seen["x-joulegate-policy"] == policy


async def test_presets_and_the_body_steer(client):
    for model, body, chosen in (
        ("auto:accuracy", {"bounds": {"min_accuracy": 0.6}}, "mistral-7b"),
        ("auto:eco", {}, "smollm2-135m"),
        ("auto", {"weights": {"accuracy": 1}}, "mistral-7b"),
        ("auto", {"weights": {"energy": 1}, "bounds": {"min_accuracy": 0.6}}, "phi-3-mini"),
    ):
        answer, _ = await ask(client, model, extra_body={"joulegate": body} if body else None)
        assert answer.model == chosen


async def test_falcon_is_never_chosen(client):
    for accuracy in (0, 0.5, 0.7, 0.8, 0.9, 1):
        headers = weights(accuracy=accuracy, energy=1 - accuracy) | THREE
        answer, _ = await ask(client, headers=headers)
        assert answer.model != "falcon-7b"


async def test_response_headers(client, backends):
    raw = await client.chat.completions.with_raw_response.create(
        model="auto", messages=HELLO, max_tokens=4, extra_headers={"x-request-id": "e2e-headers-1"}
    )
    seen = raw.headers
    assert seen["x-request-id"] == raw.request_id == "e2e-headers-1"
    assert seen["x-joulegate-model"] == raw.parse().model
    assert str(backends[raw.parse().model].port) in seen["x-joulegate-backend"]
    assert seen["x-joulegate-attempts"] == "1"
    for name in ("score", "predicted-seconds", "predicted-joules", "decision-us"):
        assert float(seen[f"x-joulegate-{name}"]) >= 0
    assert "server" not in seen or "vllm" not in seen["server"].lower()


def check_explained(decision, model):
    assert decision.keys() >= DECISION
    assert decision["model"] == model
    names = [candidate["model"] for candidate in decision["candidates"]]
    assert names[0] == model
    assert {*names, *(out["model"] for out in decision["excluded"])} == FLEET.keys()
    scores = [candidate["score"] for candidate in decision["candidates"]]
    assert scores == sorted(scores)
    for candidate in decision["candidates"]:
        terms = candidate["terms"].values()
        assert sum(terms) == pytest.approx(candidate["score"])
        assert candidate["predicted_seconds"] > 0
        assert candidate["predicted_joules"] > 0
    assert all(out["reason"] for out in decision["excluded"])


async def test_explained_answer(client):
    answer, _ = await ask(client, headers={"x-joulegate-explain": "true"} | THREE)
    check_explained(answer.model_extra["joulegate"], answer.model)
    assert [out["model"] for out in answer.model_extra["joulegate"]["excluded"]] == ["smollm2-135m"]
    answer, _ = await ask(client)
    assert "joulegate" not in answer.model_extra


@pytest.mark.parametrize("usage", [False, True])
async def test_explained_stream(client, usage):
    stream = await client.chat.completions.create(
        model="auto",
        messages=HELLO,
        max_tokens=4,
        stream=True,
        extra_headers={"x-joulegate-explain": "true"},
        **({"stream_options": {"include_usage": True}} if usage else {}),
    )
    chunks = [chunk async for chunk in stream]
    explained = [chunk for chunk in chunks if "joulegate" in chunk.model_extra]
    assert explained == chunks[-1:]
    check_explained(chunks[-1].model_extra["joulegate"], chunks[0].model)
    assert any(chunk.usage for chunk in chunks) is usage


async def test_models(client):
    listed = {model.id async for model in client.models.list()}
    assert listed >= {"auto", "auto:accuracy", "auto:energy", "auto:time", "auto:balanced"}
    assert listed >= {"auto:eco", *FLEET}
    for name in ("auto", "auto:eco", "mistral-7b"):
        assert (await client.models.retrieve(name)).id == name


async def test_dry_run_and_what_became_of_a_request(gateway, client, backends):
    before = total(backends["mistral-7b"].get("/metrics"), "vllm:generation_tokens_total")
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        body = {"model": "auto:accuracy", "messages": HELLO}
        answered = await http.post("/v1/route", json=body, headers=THREE)
        decision = answered.raise_for_status().json()
        check_explained(decision, "mistral-7b")
        after = total(backends["mistral-7b"].get("/metrics"), "vllm:generation_tokens_total")
        assert before == after

        answer, _ = await ask(client, headers={"x-request-id": "e2e-became-1"})
        became = (await http.get("/v1/requests/e2e-became-1")).raise_for_status().json()
    assert answer.model in str(became)
    assert str(answer.usage.prompt_tokens) in str(became)


async def test_every_request_is_counted_and_none_left_in_flight(gateway, client):
    def counted():
        exposition = gateway.get("/metrics")
        return (
            total(exposition, "joulegate_requests_total"),
            total(exposition, "joulegate_backend_inflight"),
        )

    before, _ = counted()
    await asyncio.gather(*(ask(client, name) for name in ["auto", *FLEET] * 4))
    await eventually(lambda: counted() == (before + 20, 0))
