"""What fails before the first content is answered by somebody else."""

import pytest

from gateway.config import RetryConfig
from tests.integration.harness import CHAT, DONE, ENERGY, STREAM, spent

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLEET = {"retry": RetryConfig(budget_start=100_000)}

FAULTS = [
    ("refuse", {}, "unreachable"),
    ("reset_on_accept", {}, "connection_lost"),
    ("status", {"status": 429}, "rate_limited"),
    ("status", {"status": 500}, "status_5xx"),
    ("status", {"status": 502, "html": True}, "status_5xx"),
    ("status", {"status": 503, "retry_after": "3"}, "status_5xx"),
    ("garbage", {}, "bad_answer"),
    ("html_200", {}, "bad_answer"),
    ("json_200_error", {}, "status_5xx"),
    ("redirect", {}, "bad_answer"),
]
UNARY = [("truncated_json", {}, "connection_lost"), ("cut_json", {}, "bad_answer")]
STREAMED = [("die_before_content", {}, "connection_lost")]
CASES = [
    *((stream, *fault) for stream in (False, True) for fault in FAULTS),
    *((False, *fault) for fault in UNARY),
    *((True, *fault) for fault in STREAMED),
]


def body(stream):
    return STREAM if stream else CHAT


def check_whole(got, stream, model):
    assert got.status == 200, got.raw
    assert got.error is None
    assert got.headers["x-joulegate-model"] == model
    if stream:
        assert got.events[-1] == DONE
        assert got.text.startswith(f"[simulated {model}]")
        assert b"error" not in got.raw
    else:
        assert got.json["model"] == model
        assert got.json["choices"][0]["message"]["content"].startswith(f"[simulated {model}]")


@pytest.mark.parametrize(("stream", "kind", "fields", "reason"), CASES)
async def test_another_backend_of_the_deployment_answers(fleet, gate, stream, kind, fields, reason):
    bad, good = fleet.phi
    fleet.fail([bad], kind, **fields)
    before = await gate.metric("joulegate_retries_total", model="phi-3-mini", reason=reason)
    for _ in range(60):
        got = await gate.ask(body(stream), ENERGY)
        check_whole(got, stream, "phi-3-mini")
        assert got.headers["x-joulegate-backend"] == good.url.removeprefix("http://")
        if got.headers["x-joulegate-attempts"] == "2":
            break
    else:
        raise AssertionError("the bad backend was never drawn")
    record = await gate.record(got)
    assert [attempt["backend"] for attempt in record["attempts"]] == [
        server.url.removeprefix("http://") for server in (bad, good)
    ]
    assert [attempt["reason"] for attempt in record["attempts"]] == [reason, None]
    after = await gate.metric("joulegate_retries_total", model="phi-3-mini", reason=reason)
    assert after - before == 1


@pytest.mark.parametrize(("stream", "kind", "fields", "reason"), CASES)
async def test_the_next_ranked_model_answers(fleet, gate, stream, kind, fields, reason):
    fleet.fail(fleet.phi, kind, **fields)
    before = await gate.metric("joulegate_retries_total", reason=reason)
    got = await gate.ask(body(stream), ENERGY)
    check_whole(got, stream, "mistral-7b")
    assert got.headers["x-joulegate-attempts"] == "3"
    assert await gate.metric("joulegate_retries_total", reason=reason) - before == 2
    # A retry is put down to the model that failed.
    assert await gate.metric("joulegate_retries_total", model="phi-3-mini", reason=reason) > 0
    assert await gate.metric("joulegate_retries_total", model="mistral-7b", reason=reason) == 0
    record = await gate.record(got)
    assert [attempt["model"] for attempt in record["attempts"]] == [
        "phi-3-mini",
        "phi-3-mini",
        "mistral-7b",
    ]
    # What is predicted is predicted of the one that answered.
    second = record["decision"]["candidates"][1]
    assert record["predicted"]["joules"] == second["predicted_joules"]
    assert float(got.headers["x-joulegate-predicted-joules"]) == pytest.approx(
        second["predicted_joules"], rel=1e-5
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_named_model_does_not_turn_into_another(fleet, gate, stream):
    fleet.fail(fleet.phi, "status", status=500)
    got = await gate.ask(body(stream) | {"model": "phi-3-mini"})
    assert got.status == 503
    assert got.headers["x-joulegate-attempts"] == "2"
    assert fleet.mistral.engine.running_requests == 0


async def test_different_failures_one_after_the_other(fleet, gate):
    fleet.fail(fleet.phi[:1], "refuse")
    fleet.fail(fleet.phi[1:], "garbage")
    fleet.fail([fleet.mistral], "cut_json")
    got = await gate.ask(headers=ENERGY)
    check_whole(got, False, "falcon-7b")
    assert got.headers["x-joulegate-attempts"] == "4"
    reasons = [attempt["reason"] for attempt in (await gate.record(got))["attempts"]]
    assert sorted(reasons[:2]) == ["bad_answer", "unreachable"]
    assert reasons[2:] == ["bad_answer", None]


async def test_split_events_arrive_as_if_whole(fleet, gate):
    def plain(got):
        assert (got.status, got.error) == (200, None)
        chunks = [{k: v for k, v in c.items() if k not in ("id", "created")} for c in got.chunks]
        return chunks, got.events[-1]

    asked = STREAM | {"stream_options": {"include_usage": True}}
    for ask in (STREAM, asked):
        whole, _ = plain(await gate.ask(ask, ENERGY))
        fleet.fail(fleet.phi, "split_events")
        split, last = plain(await gate.ask(ask, ENERGY))
        assert sum(server.faults.served["split_events"] for server in fleet.phi) > 0
        fleet.phi[0].faults.clear_faults()
        fleet.phi[1].faults.clear_faults()
        for chunk in (*whole, *split):
            chunk.pop("simulated", None)
        assert split == whole
        assert last == DONE


async def test_a_slow_head_is_waited_for(fleet, gate):
    fleet.fail(fleet.phi, "slow_headers", delay_s=0.5)
    got = await gate.ask(headers=ENERGY)
    check_whole(got, False, "phi-3-mini")
    assert got.headers["x-joulegate-attempts"] == "1"


async def test_a_redirect_is_not_followed(fleet, gate):
    before = spent(fleet.falcon)
    for server in fleet.phi:
        server.faults.set_fault("redirect", location=f"{fleet.falcon.url}/v1/chat/completions")
    got = await gate.ask(headers=ENERGY)
    check_whole(got, False, "mistral-7b")
    assert spent(fleet.falcon) == before
