"""Spans as a collector gets them over OTLP/HTTP."""

from itertools import pairwise

import pytest
from aiohttp import web
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.boundary_config import BoundaryConfig
from gateway.config import TracingConfig
from tests.integration import collector
from tests.integration.collector import PARENT, SAMPLED, TRACE, told, traced
from tests.integration.harness import CHAT, STREAM, metered, model, steady

_soon, collector = collector._soon, collector.collector

SECRET = "the moon landing script"


async def test_a_streamed_request_is_a_span_with_all_that_is_known_of_it(world, collector):
    phi, mistral = await world.recorder(), await world.recorder()
    gate = await traced(
        world, collector, model("phi-3-mini", phi), model("mistral-7b", mistral), service_name="gw"
    )
    got = await gate.ask(STREAM | {"max_tokens": 50}, SAMPLED)
    (span,) = await collector.got()
    record = await gate.record(got)

    assert (span.name, span.kind) == ("chat auto", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.trace_state == SAMPLED["tracestate"]
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 == pytest.approx(
        record["observed"]["seconds"], abs=1e-6
    )
    assert span.start_time_unix_nano / 1e9 == pytest.approx(record["at"], abs=1e-6)
    best = record["decision"]["candidates"][0]
    host, port = record["backend"].split(":")
    shown = told(span)
    assert shown.pop("joulegate.observed.seconds") > 0.0
    assert shown.pop("joulegate.decision.seconds") == pytest.approx(
        record["decision"]["decision_us"] / 1e6, abs=1e-7
    )
    assert shown == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "auto",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.response.model": record["model"],
        "gen_ai.response.time_to_first_chunk": record["observed"]["ttft_seconds"],
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 2,
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "server.address": host,
        "server.port": int(port),
        "joulegate.request.id": got.headers["x-request-id"],
        "joulegate.preset": record["preset"],
        "joulegate.policy": "relative",
        "joulegate.weights.accuracy": 0.5,
        "joulegate.weights.energy": 0.3,
        "joulegate.weights.time": 0.2,
        "joulegate.score": best["score"],
        "joulegate.feasible": True,
        "joulegate.profile.version": record["decision"]["profile_version"],
        "joulegate.deployment": record["deployment"],
        "joulegate.attempts": 1,
        "joulegate.predicted.seconds": best["predicted_seconds"],
        "joulegate.predicted.joules": best["predicted_joules"],
        "joulegate.observed.joules": record["observed"]["joules"],
        "joulegate.observed.method": "estimated",
    }
    decision, attempt = span.events
    assert (decision.name, attempt.name) == ("joulegate.decision", "joulegate.attempt")
    ranked = record["decision"]["candidates"]
    assert told(decision) == {
        "joulegate.candidates": [each["deployment"] for each in ranked],
        "joulegate.candidates.scores": [each["score"] for each in ranked],
        "joulegate.candidates.predicted_seconds": [each["predicted_seconds"] for each in ranked],
        "joulegate.candidates.predicted_joules": [each["predicted_joules"] for each in ranked],
    }
    seconds = told(attempt).pop("joulegate.attempt.seconds")
    assert 0.0 < seconds <= record["observed"]["seconds"]
    assert told(attempt) == {
        "joulegate.attempt.model": record["model"],
        "joulegate.attempt.seconds": seconds,
        "server.address": host,
        "server.port": int(port),
    }
    assert collector.resources[0]["service.name"] == "gw"
    (seen,) = [seen for seen in phi.seen + mistral.seen if seen.path.startswith("/v1/")]
    assert seen.headers["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert "tracestate" not in seen.headers


async def test_every_attempt_is_an_event_and_a_failover_is_no_error(world, collector):
    async def broken(_, __):
        return web.Response(status=503)

    bad, good = await world.recorder(broken), await world.recorder()
    gate = await traced(world, collector, model("phi-3-mini", bad, good))
    while not [seen for seen in bad.seen if seen.path.startswith("/v1/")]:
        collector.spans.clear()
        got = await gate.ask(CHAT, SAMPLED)
        await collector.got()
    assert got.status == 200
    (span,) = collector.spans
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert "error.type" not in told(span)
    decision, *attempts = span.events
    record = await gate.record(got)
    assert [told(event).get("error.type") for event in attempts] == [
        each["reason"] for each in record["attempts"]
    ]
    assert told(attempts[0])["error.type"] is not None
    times = [decision.time_unix_nano, *(event.time_unix_nano for event in attempts)]
    assert all(one <= other for one, other in pairwise(times))
    assert span.start_time_unix_nano <= times[0]
    assert times[-1] <= span.end_time_unix_nano
    # Both were told of the one span.
    parents = {seen.headers["traceparent"] for seen in bad.seen + good.seen if seen.body}
    assert f"00-{TRACE}-{span.span_id.hex()}-01" in parents


async def test_a_refusal_and_a_failure_have_spans_too_and_only_the_failure_is_the_server_s(
    world, collector
):
    async def broken(_, __):
        return web.Response(status=500)

    backend = await world.recorder(broken)
    gate = await traced(world, collector, model("phi-3-mini", backend))
    assert (await gate.ask(b"{", SAMPLED)).status == 400
    (refused,) = await collector.got()
    assert (await gate.ask(CHAT, SAMPLED)).status == 503
    _, failed = await collector.got(2)
    assert (refused.parent_span_id.hex(), refused.name) == (PARENT, "chat other")
    assert told(refused)["error.type"] == "400"
    assert told(refused)["http.response.status_code"] == 400
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert not refused.events
    assert told(failed)["error.type"] == "503"
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert "attempt" in failed.status.message
    assert "gen_ai.response.model" not in told(failed)
    assert [event.name for event in failed.events] == ["joulegate.decision", "joulegate.attempt"]


async def test_joules_are_the_meter_s_once_final(world, collector):
    simulator = await world.simulator(speed=4.0, truth_fields=steady())
    meter = await world.meter(simulator)
    gate = await traced(world, collector, model("phi-3-mini", metered(simulator, meter)))
    # On a busy machine the meter may hear of a request too late: then of the next.
    for asked in range(1, 11):
        got = await gate.ask(CHAT | {"max_tokens": 20}, SAMPLED)
        span = (await collector.got(asked))[-1]
        observed = (await gate.record(got))["observed"]
        assert told(span)["joulegate.observed.joules"] == observed["joules"]
        assert told(span)["joulegate.observed.method"] == observed["method"]
        if observed["method"] == "exclusive":
            break
    assert observed["method"] == "exclusive"


async def test_a_boundary_is_in_a_span_line_by_line(world, collector):
    backend = model("phi-3-mini", await world.simulator())
    gate = await world.gate(
        backend, tracing=TracingConfig(collector.url), boundary=BoundaryConfig(100.0, pue=1.5)
    )
    got = await gate.ask(CHAT, SAMPLED)
    (span,) = await collector.got()
    lines = (await gate.record(got))["observed"]["boundary"]
    known = {name: value for name, value in lines.items() if value is not None}
    assert {"host_joules", "host_source", "overhead_joules", "facility_joules"} <= known.keys()
    named = "joulegate.observed.boundary."
    shown = {name.removeprefix(named): v for name, v in told(span).items() if named in name}
    assert shown == known


async def test_no_prompt_no_answer_and_no_header_is_in_a_span(world, collector):
    backend = await world.simulator()
    gate = await traced(world, collector, model("phi-3-mini", backend))
    prompt = [{"role": "user", "content": SECRET}]
    got = await gate.ask(CHAT | {"messages": prompt}, {"authorization": "Bearer sk-0123"})
    answer = got.json["choices"][0]["message"]["content"]
    await collector.got()
    body = b"".join(collector.bodies)
    for private in (SECRET, "sk-0123", answer[:40]):
        assert private.encode() not in body
