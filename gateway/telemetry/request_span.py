"""The OpenTelemetry span of one request, made of its finished record.

Rules: no prompt, no answer and no header of a client is in a span. Names are those of the GenAI
semantic conventions of 2026 (docs/gen-ai/client-inference.md there).
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import UNANSWERED
from gateway.telemetry.trace_context import TraceContext

_OPERATIONS: Final = {
    "chat": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "responses": "chat",
    "messages": "chat",
    "count_tokens": "count_tokens",
}
_ROUTES: Final = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
}
_PROVIDER: Final = "vllm"
_MOST: Final = 2**63 - 1
"""OTLP's integers have 64 bits; what a backend or a client says may have more."""


class FinishedRequest(ReadableSpan):
    """A record on its way to the thread that makes a span of it."""

    def __init__(self, record: RequestRecord, trace: TraceContext, resource: Resource) -> None:
        context = SpanContext(
            int(trace.trace_id, 16), int(trace.span_id, 16), False, TraceFlags(trace.flags)
        )
        super().__init__("", context, resource=resource)
        self.record = record
        self.trace = trace


def make_span(finished: FinishedRequest, scope: InstrumentationScope) -> ReadableSpan:
    """Make the span of a request."""
    record, trace, context = finished.record, finished.trace, finished.context
    state = TraceState.from_header([trace.trace_state])
    flags = TraceFlags(trace.flags)
    parent = None
    if trace.parent_id:
        parent = SpanContext(
            int(trace.trace_id, 16), int(trace.parent_id, 16), True, flags, state
        )  # fmt: skip
    start = _to_nanoseconds(record.received.at)
    end = _to_nanoseconds(record.received.at + record.seconds)
    events = sorted(_make_events(record, trace, start, end), key=lambda event: event.timestamp)
    return ReadableSpan(
        name=f"{_name_operation(record)} {record.target.requested}",
        context=SpanContext(context.trace_id, context.span_id, False, flags, state),
        parent=parent,
        resource=finished.resource,
        attributes=_drop_unknown(
            {**_build_semantic_attributes(record), **_build_gateway_attributes(record)}
        ),
        events=events,
        kind=SpanKind.SERVER,
        status=_make_status(record),
        start_time=start,
        end_time=end,
        instrumentation_scope=scope,
    )


def _build_semantic_attributes(record: RequestRecord) -> dict[str, Any]:
    """Return the attributes that the semantic conventions name."""
    served, outcome = record.served, record.outcome
    return {
        "gen_ai.operation.name": _name_operation(record),
        "gen_ai.provider.name": _PROVIDER,
        "gen_ai.request.model": record.target.requested,
        "gen_ai.request.stream": record.parsed.stream,
        "gen_ai.request.max_tokens": record.planned and record.planned.asked_tokens,
        # A request that nobody answered has the model it was last sent to.
        "gen_ai.response.model": record.answered and record.answered.model,
        "gen_ai.response.time_to_first_chunk": served.ttft_seconds,
        "gen_ai.usage.input_tokens": served.prompt_tokens,
        "gen_ai.usage.output_tokens": served.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": served.cached_tokens,
        "error.type": None if outcome.error is None else str(outcome.code),
        "http.request.method": "POST",
        "http.route": _ROUTES.get(record.received.kind),
        "http.response.status_code": outcome.code,
        **_build_server_attributes(record.backend),
    }


def _name_operation(record: RequestRecord) -> str:
    kind = record.received.kind
    return _OPERATIONS.get(kind, kind)


def _build_gateway_attributes(record: RequestRecord) -> dict[str, Any]:
    """Return what only this gateway knows."""
    served, answered, settled = record.served, record.answered or UNANSWERED, record.settled
    found: dict[str, Any] = {
        "joulegate.request.id": record.id,
        "joulegate.preset": record.target.preset,
        "joulegate.deployment": answered.deployment,
        "joulegate.attempts": len(record.attempts),
        "joulegate.predicted.seconds": answered.predicted_seconds,
        "joulegate.predicted.joules": answered.predicted_joules,
        "joulegate.observed.seconds": served.serving_seconds,
        "joulegate.observed.joules": settled and settled.joules,
        "joulegate.observed.method": settled and settled.method,
        "joulegate.observed.co2e_grams": settled and settled.co2e_grams,
    }
    for name, value in (record.boundary.to_dict() if record.boundary is not None else {}).items():
        found[f"joulegate.observed.boundary.{name}"] = value
    planned = record.planned
    if planned is not None:
        decision, by = planned.decision, (record.model, answered.deployment)
        scores = [s.score for s in decision.candidates if (s.model, s.deployment) == by]
        found |= {
            "joulegate.policy": decision.policy,
            "joulegate.weights.accuracy": decision.weights.accuracy,
            "joulegate.weights.energy": decision.weights.energy,
            "joulegate.weights.time": decision.weights.time,
            "joulegate.score": scores[0] if scores else None,
            "joulegate.feasible": decision.feasible,
            "joulegate.profile.version": decision.profile_version,
            "joulegate.decision.seconds": planned.decision_seconds,
        }
    return found


def _make_events(
    record: RequestRecord, trace: TraceContext, start: int, end: int
) -> Iterator[Event]:
    """Yield the decision, then each backend asked, within the span whatever the clock did."""
    times = [min(max(start, _to_nanoseconds(asked.at)), end) for asked in trace.asked]
    decision = None if record.planned is None else record.planned.decision
    if decision is not None:
        ranked = decision.candidates
        yield Event(
            "joulegate.decision",
            _drop_unknown(
                {
                    "joulegate.candidates": [scored.deployment for scored in ranked],
                    "joulegate.candidates.scores": [scored.score for scored in ranked],
                    "joulegate.candidates.predicted_seconds": [s.predicted_seconds for s in ranked],
                    "joulegate.candidates.predicted_joules": [s.predicted_joules for s in ranked],
                    "joulegate.excluded": [out.deployment for out in decision.excluded],
                    "joulegate.excluded.reasons": [out.reason for out in decision.excluded],
                }
            ),
            timestamp=times[0] if times else end,
        )
    for attempt, asked, timestamp in zip(record.attempts, trace.asked, times, strict=True):
        yield Event(
            "joulegate.attempt",
            _drop_unknown(
                {
                    "joulegate.attempt.model": attempt.model,
                    "joulegate.attempt.seconds": asked.seconds,
                    "error.type": attempt.reason,
                    **_build_server_attributes(attempt.backend),
                }
            ),
            timestamp=timestamp,
        )


def _make_status(record: RequestRecord) -> Status:
    """Return Error for what the server is to blame for, as HTTP's conventions have it."""
    outcome = record.outcome
    if outcome.error is None or outcome.code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Status(StatusCode.UNSET)
    # A backend's words may hold half a character.
    return Status(
        StatusCode.ERROR, (outcome.logged or outcome.error).encode("utf-8", "replace").decode()
    )


def _build_server_attributes(backend: str) -> dict[str, Any]:
    """Return the address and port of a backend, by its label."""
    try:
        parts = urlsplit(f"//{backend}")
        port = parts.port
    except ValueError:
        return {"server.address": backend}
    return {"server.address": parts.hostname, "server.port": port}


def _drop_unknown(attributes: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is not known, and make integers fit."""
    return {
        name: min(value, _MOST) if isinstance(value, int) else value
        for name, value in attributes.items()
        if value is not None and value not in ("", [])
    }


def _to_nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
