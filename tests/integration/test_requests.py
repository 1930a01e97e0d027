"""What becomes of a request is remembered, and where: by id, in the metrics, in the log."""

import json

import pytest

from gateway.config import LimitsConfig, LogConfig
from tests.integration.harness import CHAT, ENERGY, STREAM, model, until


@pytest.mark.parametrize("stream", [False, True])
async def test_a_record_has_decision_usage_predicted_and_observed(world, stream):
    simulator = await world.simulator()
    gate = await world.gate(model("phi-3-mini", simulator))
    got = await gate.ask((STREAM if stream else CHAT) | {"model": "auto:energy"})
    record = await gate.record(got)
    assert record["id"] == got.headers["x-request-id"]
    assert record["requested"] == "auto:energy"
    assert (record["preset"], record["kind"], record["stream"]) == ("energy", "chat", stream)
    assert (record["model"], record["code"], record["error"]) == ("phi-3-mini", 200, None)
    assert record["backend"] == got.headers["x-joulegate-backend"]
    assert record["usage"]["completion_tokens"] == 44
    assert record["usage"]["prompt_tokens"] > 0
    decision = record["decision"]
    assert decision["id"] == record["id"]
    assert decision["weights"] == pytest.approx({"accuracy": 0.1, "energy": 0.8, "time": 0.1})
    best = decision["candidates"][0]
    predicted = record["predicted"]
    assert predicted["seconds"] == best["predicted_seconds"]
    assert predicted["joules"] == best["predicted_joules"]
    tokens_out = decision["tokens"]["output"]
    assert predicted["seconds"] == pytest.approx(
        predicted["ttft_seconds"] + (tokens_out - 1) * predicted["time_per_output_token_seconds"]
    )
    live = record["compared"]["live"]
    assert live["profile_version"] == decision["profile_version"]
    assert live["output_tokens"] == tokens_out
    assert record["compared"]["shadow"] is None
    observed = record["observed"]
    assert 0 < observed["seconds"] < 60
    assert (observed["ttft_seconds"] is not None) is stream
    assert observed["method"] == "estimated"
    # Nothing but the backend's own count of tokens is between the two.
    truth = simulator.spec.truth.total_joules(
        record["usage"]["prompt_tokens"], record["usage"]["completion_tokens"]
    )
    assert observed["joules"] == pytest.approx(truth)
    assert record["attempts"] == [
        {"model": "phi-3-mini", "backend": record["backend"], "reason": None}
    ]
    for name, value in (
        ("joulegate_requests_total", 1),
        ("joulegate_request_duration_seconds_count", 1),
        ("joulegate_time_to_first_token_seconds_count", float(stream)),
        ("joulegate_time_per_output_token_seconds_count", float(stream)),
        ("joulegate_predicted_duration_seconds_count", 1),
        ("joulegate_request_predicted_energy_joules_count", 1),
        ("joulegate_predicted_time_to_first_token_seconds_count", float(stream)),
        ("joulegate_predicted_time_per_output_token_seconds_count", float(stream)),
        ("joulegate_prediction_requests_total", 2.0),
        ("joulegate_predicted_energy_joules_total", record["predicted"]["joules"]),
        ("joulegate_energy_joules_total", observed["joules"]),
        ("joulegate_request_energy_joules_count", 1),
        ("joulegate_decisions_total", 1),
        ("joulegate_decision_duration_seconds_count", 1),
    ):
        assert await gate.metric(name) == pytest.approx(value), name
    assert await gate.metric("joulegate_tokens_total", type="completion") == 44
    assert await gate.metric(
        "joulegate_requests_total",
        model="phi-3-mini",
        requested="auto:energy",
        code="200",
        stream=str(stream).lower(),
    )
    assert await gate.metric(
        "joulegate_decisions_total", model="phi-3-mini", policy="relative", preset="energy"
    )


async def test_refused_requests_are_recorded_too(world):
    gate = await world.gate(model("phi-3-mini", await world.simulator()))
    got = await gate.ask(b"not json")
    record = await gate.record(got)
    assert (record["code"], record["model"], record["decision"]) == (400, None, None)
    assert record["error"] == got.json["error"]["message"]
    assert await gate.metric("joulegate_requests_total", code="400", model="none") == 1


async def test_only_so_many_are_kept_and_an_unknown_one_is_a_404(world):
    gate = await world.gate(
        model("phi-3-mini", await world.simulator()), limits=LimitsConfig(requests_kept=2)
    )
    first, second, third = [await gate.ask(CHAT | {"max_tokens": 1}) for _ in range(3)]
    assert (await gate.record(third))["id"] != (await gate.record(second))["id"]
    gone = await gate.get(f"/v1/requests/{first.headers['x-request-id']}")
    assert (gone.status, gone.json["error"]["code"]) == (404, "request_not_found")


async def test_the_decision_log_has_a_line_per_request_and_losing_it_costs_none(world, tmp_path):
    backend = await world.simulator()
    path = tmp_path / "decisions.jsonl"
    gate = await world.gate(model("phi-3-mini", backend), log=LogConfig(str(path)))
    ids = [(await gate.ask(headers=ENERGY)).headers["x-request-id"] for _ in range(3)]
    await until(lambda: path.exists() and path.read_text().count("\n") == 3, "three lines")
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ids
    lost = await world.gate(
        model("phi-3-mini", backend), log=LogConfig(str(tmp_path / "no" / "such" / "folder"))
    )
    assert (await lost.ask()).status == 200
    await until(
        lambda: lost.runtime.metrics.log_dropped._value.get() == 1, "the loss to be counted"
    )
    assert (await lost.ask()).status == 200
