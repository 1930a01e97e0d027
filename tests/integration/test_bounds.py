"""Hard bounds: who is left out and why, and what is done when nobody is left."""

import openai
import pytest

from tests.integration.harness import CHAT, HELLO, STREAM, spent

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def explained(gate, headers, body=CHAT):
    got = await gate.ask(body, headers | {"x-joulegate-explain": "true"})
    assert got.status == 200, got.raw
    return got, got.json["joulegate"]


# As long as it may be and as long as it must: mean and quantile of its length are the same.
PINNED = CHAT | {"max_tokens": 20, "min_tokens": 20}


async def predictions(gate):
    _, shown = await explained(gate, {}, PINNED)
    return {c["model"]: c for c in shown["candidates"]}


@pytest.mark.parametrize(
    ("header", "member", "scale"),
    [
        ("x-joulegate-max-latency-ms", "predicted_seconds", 1e3),
        ("x-joulegate-max-energy-joules", "predicted_joules", 1),
    ],
)
async def test_an_upper_bound_leaves_out_those_above_it(gate, header, member, scale):
    of = await predictions(gate)
    limit = scale * (of["mistral-7b"][member] + of["falcon-7b"][member]) / 2
    headers = {header: f"{limit:.9f}", "x-joulegate-weight-accuracy": "1"}
    got, shown = await explained(gate, headers, PINNED)
    assert [c["model"] for c in shown["candidates"]] == ["mistral-7b", "phi-3-mini"]
    (out,) = shown["excluded"]
    assert out["model"] == "falcon-7b"
    assert out["reason"].startswith("bound: ")
    assert header.removeprefix("x-joulegate-").replace("-", "_") in out["reason"]
    assert shown["feasible"] is True
    assert "x-joulegate-feasible" not in got.headers
    assert await gate.metric("joulegate_exclusions_total", model="falcon-7b", reason="bound") > 0


async def test_a_lower_bound_on_accuracy(gate):
    _, shown = await explained(gate, {"x-joulegate-min-accuracy": "0.7"})
    assert {c["model"] for c in shown["candidates"]} == {"mistral-7b", "falcon-7b"}
    assert "min_accuracy" in shown["excluded"][0]["reason"]
    _, shown = await explained(gate, {"x-joulegate-min-accuracy": "0.723"})
    assert [c["model"] for c in shown["candidates"]] == ["mistral-7b"]


async def test_a_bound_that_is_met_exactly_is_kept(gate):
    of = await predictions(gate)
    joules = of["phi-3-mini"]["predicted_joules"]
    bounds = {"max_energy_joules": joules}
    _, shown = await explained(gate, {}, PINNED | {"joulegate": {"bounds": bounds}})
    assert [c["model"] for c in shown["candidates"]] == ["phi-3-mini"]


@pytest.mark.parametrize("zero", ["0", "0.0", "1e-300"])
async def test_best_effort_serves_the_least_bad_and_says_so(gate, zero):
    got, shown = await explained(gate, {"x-joulegate-max-energy-joules": zero})
    assert got.headers["x-joulegate-feasible"] == "false"
    assert (shown["feasible"], shown["model"]) == (False, "phi-3-mini")
    assert len(shown["excluded"]) == len(shown["candidates"]) == 3
    got, shown = await explained(
        gate, {"x-joulegate-min-accuracy": "1", "x-joulegate-infeasible": "best-effort"}
    )
    assert (shown["feasible"], shown["model"]) == (False, "mistral-7b")


@pytest.mark.parametrize("body", [CHAT, STREAM, CHAT | {"model": "phi-3-mini"}])
async def test_reject_is_a_422(fleet, gate, body):
    before = [spent(server) for server in fleet.all]
    got = await gate.ask(
        body, {"x-joulegate-max-latency-ms": "0.001", "x-joulegate-infeasible": "reject"}
    )
    error = got.json["error"]
    assert (got.status, error["code"], error["type"]) == (
        422,
        "no_feasible_model",
        "invalid_request_error",
    )
    assert "max_latency_ms" in error["message"]
    after = [spent(server) for server in fleet.all]
    assert after == before
    member = {"bounds": {"max_latency_ms": 0.001}, "infeasible": "reject"}
    assert (await gate.ask(body | {"joulegate": member})).status == 422
    async with gate.sdk() as sdk:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            await sdk.chat.completions.create(
                model="auto", messages=HELLO, extra_body={"joulegate": member}
            )
    assert caught.value.code == "no_feasible_model"


async def test_rejecting_changes_nothing_where_a_model_keeps_within(gate):
    got, shown = await explained(
        gate, {"x-joulegate-min-accuracy": "0.7", "x-joulegate-infeasible": "reject"}
    )
    assert (got.status, shown["feasible"]) == (200, True)


async def test_context_leaves_out_and_then_refuses(gate):
    long = [{"role": "user", "content": "word " * 3000}]
    _, shown = await explained(gate, {}, CHAT | {"messages": long})
    assert [out["model"] for out in shown["excluded"]] == ["falcon-7b"]
    assert shown["excluded"][0]["reason"].startswith("context: ")
    # A large limit alone shuts nobody out; an answer that must be that long does.
    _, shown = await explained(gate, {}, CHAT | {"max_tokens": 4090})
    assert len(shown["candidates"]) == 3
    plan = CHAT | {"max_tokens": 4090, "min_tokens": 4090}
    dry = await gate.ask(plan, {}, "/v1/route")
    assert [c["model"] for c in dry.json["candidates"]] == ["mistral-7b"]
    got = await gate.ask(CHAT | {"messages": [{"role": "user", "content": "word " * 30_000}]})
    error = got.json["error"]
    assert (got.status, error["code"]) == (400, "context_length_exceeded")


async def test_a_named_model_speaks_for_itself_about_its_context(gate):
    long = [{"role": "user", "content": "word " * 3000}]
    got = await gate.ask({"model": "falcon-7b", "messages": long})
    error = got.json["error"]
    assert (got.status, error["code"]) == (400, "context_length_exceeded")
    assert "maximum context length is 2048" in error["message"]


async def test_images_need_a_model_that_sees(gate):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    got = await gate.ask(CHAT | {"messages": [{"role": "user", "content": parts}]})
    error = got.json["error"]
    assert (got.status, error["code"]) == (400, "unsupported_capability")
    assert "images" in error["message"]
