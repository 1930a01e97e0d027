"""The trace context as a backend gets it."""

import asyncio

import pytest

from tests.integration import collector
from tests.integration.collector import PARENT, SAMPLED, TRACE, traced
from tests.integration.harness import CHAT, model

_soon, collector = collector._soon, collector.collector

UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


async def test_without_a_caller_s_context_a_trace_begins_here(world, collector):
    backend = await world.recorder()
    gate = await traced(world, collector, model("phi-3-mini", backend))
    await asyncio.gather(*(gate.ask(CHAT) for _ in range(20)))
    spans = await collector.got(20)
    sent = {seen.headers["traceparent"] for seen in backend.seen if seen.path.startswith("/v1/")}
    assert sent == {f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in spans}
    assert len({span.trace_id for span in spans}) == 20
    assert not any(span.parent_span_id for span in spans)


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
