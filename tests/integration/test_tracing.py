"""Spans as a collector gets them over OTLP/HTTP, and the context as a backend gets it."""

import asyncio
import gzip
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.config import TracingConfig
from tests.integration.harness import CHAT, STREAM, metered, model, steady, until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "congo=t61rcWkgMzE"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
SECRET = "the moon landing script"


def plain(value):
    """An attribute's value, whatever its type."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    return getattr(value, kind)


def told(thing):
    """The attributes of a span, an event or a resource."""
    return {pair.key: plain(pair.value) for pair in thing.attributes}


class Collector:
    """An OTLP/HTTP collector in threads of its own, so that no test's event loop can hold it up."""

    def __init__(self):
        self.bodies = []
        self.spans = []
        self.resources = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert (self.path, self.headers["content-type"]) == (
                    "/v1/traces",
                    "application/x-protobuf",
                )
                collector.take(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"

    def take(self, body):
        request = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for group in request.resource_spans:
            self.resources.append(told(group.resource))
            self.spans += [span for scope in group.scope_spans for span in scope.spans]

    async def got(self, count=1):
        """Wait for so many spans."""
        await until(lambda: len(self.spans) >= count, f"{count} spans")
        return self.spans

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


@pytest.fixture
def collector():
    with Collector() as found:
        yield found


async def traced(world, collector, *models, **fields):
    return await world.gate(*models, tracing=TracingConfig(collector.url, **fields))


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
        "joulegate.policy": "fair-ols",
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


async def test_without_a_caller_s_context_a_trace_begins_here(world, collector):
    backend = await world.recorder()
    gate = await traced(world, collector, model("phi-3-mini", backend))
    await asyncio.gather(*(gate.ask(CHAT) for _ in range(20)))
    spans = await collector.got(20)
    sent = {seen.headers["traceparent"] for seen in backend.seen if seen.path.startswith("/v1/")}
    assert sent == {f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in spans}
    assert len({span.trace_id for span in spans}) == 20
    assert not any(span.parent_span_id for span in spans)


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
    got = await gate.ask(CHAT | {"max_tokens": 20}, SAMPLED)
    (span,) = await collector.got()
    observed = (await gate.record(got))["observed"]
    assert observed["method"] == "exclusive"
    assert told(span)["joulegate.observed.joules"] == observed["joules"]
    assert told(span)["joulegate.observed.method"] == "exclusive"


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


async def test_what_is_not_recorded_is_told_to_backends_all_the_same(world, collector):
    backend = await world.recorder()
    gate = await traced(world, collector, model("phi-3-mini", backend), sample_ratio=0.0)
    await gate.ask(CHAT)
    await gate.ask(CHAT, UNSAMPLED)
    await gate.ask(CHAT, SAMPLED)
    (span,) = await collector.got()
    fresh, passed, recorded = [
        seen.headers["traceparent"] for seen in backend.seen if seen.path.startswith("/v1/")
    ]
    assert fresh.endswith("-00")
    assert passed == UNSAMPLED["traceparent"]
    assert recorded == f"00-{TRACE}-{span.span_id.hex()}-01"


async def test_spans_that_are_not_sent_yet_are_sent_at_the_end(world, collector, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    backend = await world.recorder()
    gate = await traced(world, collector, model("phi-3-mini", backend))
    for _ in range(3):
        await gate.ask(CHAT)
    assert not collector.spans
    await world.stack.aclose()
    assert len(collector.spans) == 3


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_a_collector_that_never_answers_holds_up_no_request_and_no_shutdown(
    world, monkeypatch
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    held = asyncio.Event()

    async def hold(reader, _):
        await reader.readuntil(b"\r\n\r\n")
        held.set()
        await asyncio.Event().wait()

    mute, backend = await world.raw(hold), await world.recorder()
    # The processor alone would wait for half a minute.
    async with asyncio.timeout(25):
        # Closed first: the collector is still mute then.
        inner = type(world)(await world.stack.enter_async_context(type(world.stack)()))
        gate = await inner.gate(
            model("phi-3-mini", backend), tracing=TracingConfig(f"{mute.url}/v1/traces")
        )
        await gate.ask(CHAT)
        await held.wait()
        # More than the processor's queue holds.
        for _ in range(10):
            answers = await asyncio.gather(*(gate.ask(CHAT) for _ in range(250)))
            assert {got.status for got in answers} == {200}
        await inner.stack.aclose()


async def test_a_collector_that_is_not_there_costs_nothing_but_its_spans(world, unused_port):
    backend = await world.recorder()
    gate = await world.gate(
        model("phi-3-mini", backend),
        tracing=TracingConfig(f"http://127.0.0.1:{unused_port}/v1/traces"),
    )
    assert {(await gate.ask(CHAT)).status for _ in range(20)} == {200}
    async with asyncio.timeout(60):
        await world.stack.aclose()


@pytest.fixture
def unused_port():
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_address[1]


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ([("traceparent", SAMPLED["traceparent"])], SAMPLED["traceparent"]),
        ([("traceparent", UNSAMPLED["traceparent"])], UNSAMPLED["traceparent"]),
        ([*SAMPLED.items(), ("baggage", "a=1")], SAMPLED["traceparent"]),
        ([("traceparent", f"cc-{TRACE}-{PARENT}-01-later")], f"00-{TRACE}-{PARENT}-01"),
        ([("traceparent", SAMPLED["traceparent"])] * 2, None),
        ([("traceparent", f"00-{TRACE.upper()}-{PARENT}-01")], None),
        ([("traceparent", f"00-{TRACE}-{PARENT}-01-more")], None),
        ([("tracestate", "congo=t61rcWkgMzE")], None),
        ([], None),
    ],
)
async def test_without_tracing_a_sound_traceparent_is_passed_on_and_nothing_else(
    world, sent, passed
):
    from multidict import CIMultiDict

    backend = await world.recorder()
    gate = await world.gate(model("phi-3-mini", backend))
    assert (await gate.ask(CHAT, CIMultiDict(sent))).status == 200
    (seen,) = [seen for seen in backend.seen if seen.path.startswith("/v1/")]
    assert seen.headers.get("traceparent") == passed
    assert not {"tracestate", "baggage"} & {name.lower() for name in seen.headers}


def test_nothing_of_opentelemetry_is_loaded_unless_configured():
    script = """
import sys
from gateway.app import create_app
from gateway.config import parse
create_app(parse("models: [{name: phi-3-mini, context: 9, backends: [{url: 'http://a:1'}]}]", "x"))
heavy = ("opentelemetry.sdk", "opentelemetry.exporter", "gateway.telemetry.tracing")
assert not [name for name in sys.modules if name.startswith(heavy)]
"""
    # Litestar itself loads some names of the API where it is installed.
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
