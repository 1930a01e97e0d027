"""What is read of a trace context, who is recorded, and spans of odd records."""

import re
import sys
import time
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from typer.testing import CliRunner

from gateway import cli, config
from gateway.api.incoming import read_head
from gateway.console import OK, UNUSABLE
from gateway.scheduling.decision import MetricWeights, RoutingDecision
from gateway.telemetry.request_span import FinishedRequest, make_span
from gateway.telemetry.request_stages import BackendAttempt
from gateway.telemetry.trace_context import (
    AttemptTiming,
    TraceContext,
    TraceSampler,
    parse_trace_context,
)
from tests.unit.gateway.telemetry.request_records import make_record

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{PARENT}-01"
MODELS = "models: [{name: phi-3-mini, context: 4096, backends: [{url: 'http://a:1'}]}]\n"
YAML = MODELS + "tracing: {endpoint: 'http://otel:4318/v1/traces'}\n"


def context(parent=HEADER, *states):
    sent = [("traceparent", parent), *(("tracestate", state) for state in states)]
    return parse_trace_context([(name.encode(), value.encode("latin-1")) for name, value in sent])


def test_a_context_is_read_and_passed_on_as_it_is():
    found = context(HEADER, "congo=t61rcWkgMzE")
    assert found == TraceContext(HEADER, TRACE, 1, PARENT, (b"congo=t61rcWkgMzE",))
    assert context(f" {HEADER}\t") == TraceContext(HEADER, TRACE, 1, PARENT)
    assert context(f"00-{TRACE}-{PARENT}-ff").header == f"00-{TRACE}-{PARENT}-ff"


@pytest.mark.parametrize(
    "later", ["01-{}", "cc-{}", "fe-{}-", "09-{}-more.of=it", "01-{}-" + "x" * 200]
)
def test_of_a_later_version_what_is_known_is_used(later):
    known = HEADER.removeprefix("00-")
    assert context(later.format(known)) == TraceContext(HEADER, TRACE, 1, PARENT)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "00",
        HEADER[:-1],
        HEADER + "0",
        HEADER + "-",
        HEADER + "-00",
        HEADER.upper(),
        HEADER.replace("-", "_"),
        "ff" + HEADER[2:],
        "0" + HEADER,
        "01" + HEADER[2:] + "more",
        "01" + HEADER[2:] + "-" + "x" * 201,
        "01" + HEADER[2:] + "-a b",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-0g",
        f"{HEADER}, {HEADER}",
        f"{HEADER}\n",
        f"{HEADER}\x00",
    ],
)
def test_anything_else_is_no_context(bad):
    assert context(bad) is None


def test_two_contexts_are_none():
    assert parse_trace_context([(b"traceparent", HEADER.encode())] * 2) is None
    assert parse_trace_context([(b"tracestate", b"a=1")]) is None


@given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f-]{40,60}.*"))
def test_whatever_is_passed_on_is_hex_and_dashes(given_bytes):
    found = parse_trace_context([(b"traceparent", given_bytes)])
    assert found is None or re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", found.header)


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        (["a=1", "b=2"], "a=1,b=2"),
        (["a=1 , \t b=2,,"], "a=1,b=2"),
        (["0@x/y*_-=!~ z"], "0@x/y*_-=!~ z"),
        ([""], ""),
        (["a=1,a=2"], ""),
        (["a=1,B=2"], ""),
        (["a=1,b"], ""),
        (["a=1=2"], ""),
        (["a=é"], ""),
        (["a=" + "x" * 257], ""),
        ([",".join(f"k{n}=v" for n in range(32))], ",".join(f"k{n}=v" for n in range(32))),
        ([",".join(f"k{n}=v" for n in range(33))], ""),
        ([",".join(f"k{n}={'v' * 100}" for n in range(6))], ""),
    ],
)
def test_a_bad_state_costs_itself_alone(states, kept):
    found = context(HEADER, *states)
    assert (found.header, found.trace_state) == (HEADER, kept)


def test_the_head_has_the_context():
    raw = [(b"traceparent", HEADER.encode()), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")]
    assert (
        read_head({"type": "http", "method": "POST", "headers": raw}).trace.trace_state == "a=1,b=2"
    )
    assert read_head({"type": "http", "method": "POST", "headers": raw[1:]}).trace is None


def test_a_recorded_request_gets_a_span_of_its_own_once():
    sampler = TraceSampler(0.0)
    begun = sampler.begin_span(context())
    span_id = begun.span_id
    assert re.fullmatch("[0-9a-f]{16}", span_id)
    assert (begun.header, begun.parent_id) == (f"00-{TRACE}-{span_id}-01", PARENT)
    assert sampler.begin_span(begun).span_id == span_id


def test_a_caller_that_records_nothing_is_followed():
    begun = TraceSampler(1.0).begin_span(context(f"00-{TRACE}-{PARENT}-00"))
    assert (begun.span_id, begun.header) == ("", f"00-{TRACE}-{PARENT}-00")


def test_only_the_flags_that_are_known_are_sent():
    assert TraceSampler(1.0).begin_span(context(f"00-{TRACE}-{PARENT}-ff")).header.endswith("-03")


@given(st.floats(0.0, 1.0))
def test_a_ratio_of_the_rest_is_recorded_by_their_ids(ratio):
    begun = [TraceSampler(ratio).begin_span(None) for _ in range(50)]
    for trace in begun:
        recorded = int(trace.trace_id[16:], 16) < round(ratio * 2**64)
        assert trace.header.endswith("-01" if recorded else "-00")
        assert bool(trace.span_id) is recorded
        assert trace.header.startswith(f"00-{trace.trace_id}-{trace.span_id}")
        # What is sent is well-formed, and read as it was meant.
        assert context(trace.header).flags == recorded
    assert len({trace.trace_id for trace in begun}) == 50


def test_attempts_are_noted_where_there_is_a_span():
    sampler = TraceSampler(1.0)
    begun, quiet = sampler.begin_span(None), context(f"00-{TRACE}-{PARENT}-00")
    for trace in (begun, quiet, None):
        sampler.record_attempt(trace, time.monotonic() - 2.0)
    ((at, seconds),) = begun.asked
    assert seconds == pytest.approx(2.0, abs=0.5)
    assert at + seconds == pytest.approx(time.time(), abs=0.5)
    assert not quiet.asked


DECISION = RoutingDecision("fair-ols", MetricWeights(0.5, 0.3, 0.2), (), (), True, "v")


def record(**fields):
    return make_record("r", 100.0, preset="none", **fields)


def encoded(made, trace=None):
    """A span as the exporter would send it; encoding is where an odd value would cost a batch."""
    trace = trace or TraceSampler(1.0).begin_span(None)
    resource = Resource(MappingProxyType({}))
    span = make_span(FinishedRequest(made, trace, resource), InstrumentationScope("joulegate"))
    return encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]


def shown(span):
    return {pair.key: pair.value for pair in span.attributes}


def test_a_record_of_nothing_is_a_span():
    span = encoded(record())
    assert span.end_time_unix_nano == span.start_time_unix_nano == 100 * 10**9
    assert not span.events
    assert "server.address" not in shown(span)


def test_numbers_of_any_size_are_sent():
    span = encoded(
        record(completion_tokens=10**30, prompt_tokens=0, decision=DECISION, asked_tokens=2**63)
    )
    assert shown(span)["gen_ai.usage.output_tokens"].int_value == 2**63 - 1
    assert shown(span)["gen_ai.request.max_tokens"].int_value == 2**63 - 1
    assert shown(span)["gen_ai.usage.input_tokens"].int_value == 0


def test_half_a_character_in_an_error_costs_only_itself():
    span = encoded(record(code=502, error="bad \ud83d end"))
    assert span.status.message == "bad ? end"


@pytest.mark.parametrize(
    ("label", "address", "port"),
    [
        ("gpu-0:8000", "gpu-0", 8000),
        ("10.0.0.1:80/phi", "10.0.0.1", 80),
        ("[::1]:8000", "::1", 8000),
        ("phi.example", "phi.example", None),
        ("[oops", "[oops", None),
    ],
)
def test_a_backend_s_address(label, address, port):
    found = shown(encoded(record(backend=label)))
    assert found["server.address"].string_value == address
    assert ("server.port" in found) is (port is not None)
    assert port is None or found["server.port"].int_value == port


def test_events_stay_within_the_span_when_the_clock_is_set():
    trace = TraceSampler(1.0).begin_span(None)
    trace.asked += [AttemptTiming(90.0, 1.0), AttemptTiming(200.0, 1.0)]
    attempts = [BackendAttempt("m", "a:1", "lost"), BackendAttempt("m", "b:2", None)]
    span = encoded(record(seconds=5.0, attempts=attempts), trace)
    assert [event.time_unix_nano // 10**9 for event in span.events] == [100, 105]


def loaded(tmp_path, text):
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return config.load_config(path).tracing


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("ENDPOINT", "TRACES_ENDPOINT"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)


def test_it_is_off_by_default(tmp_path):
    assert loaded(tmp_path, MODELS).endpoint is None


@pytest.mark.parametrize(
    ("section", "where"),
    [
        ("{endpoint: otel}", "tracing"),
        ("{endpoint: 'http://o:1', sample_ratio: 1.5}", "tracing.sample_ratio"),
        ("{endpoint: 'http://o:1', service_name: ''}", "tracing.service_name"),
        ("{sample_ratio: 0.5}", "endpoint: is missing"),
    ],
)
def test_a_bad_section_is_refused(tmp_path, section, where):
    with pytest.raises(config.ConfigError, match=where):
        loaded(tmp_path, f"{MODELS}tracing: {section}\n")


def test_the_environment_counts_where_the_file_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://o:4318/")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gw")
    root = config.TracingConfig("http://o:4318/v1/traces", 0.25, "gw")
    assert loaded(tmp_path, MODELS) == root
    assert loaded(tmp_path, YAML) == config.TracingConfig("http://otel:4318/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/x")
    assert loaded(tmp_path, MODELS).endpoint == "http://t:1/x"
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "often")
    with pytest.raises(config.ConfigError, match="OTEL"):
        loaded(tmp_path, MODELS)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert loaded(tmp_path, MODELS).endpoint is None


@pytest.mark.parametrize("module", ["opentelemetry.exporter.otlp.proto.http", "opentelemetry.sdk"])
def test_a_missing_extra_is_told_by_check(tmp_path, monkeypatch, module):
    path = tmp_path / "gateway.yaml"
    path.write_text(YAML)
    command = ["check", "--config", str(path)]
    assert CliRunner().invoke(cli.app, command).exit_code == OK
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(config.ConfigError, match=r"pip install '\S*\[otel\]"):
        config.load_config(path)
    assert CliRunner().invoke(cli.app, command).exit_code == UNUSABLE
