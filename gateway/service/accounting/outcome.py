"""What an upstream response adds to the record, and the response headers made of it."""

from backends.sse import TokenUsage
from gateway.scheduling.cost import COST_FLOOR
from gateway.service.client import headers as names
from gateway.service.client.api_error import Header
from gateway.service.client.passed_headers import select_headers
from gateway.service.request.plan import RoutingPlan
from gateway.service.request.routing_table import RoutingSnapshot
from gateway.service.upstream.relay import UnaryResponse
from gateway.service.upstream.upstream_response import UpstreamResponse
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import AnsweredRequest, ServedRequest


def build_response_headers(
    record: RequestRecord,
    opened: UpstreamResponse,
    made: RoutingPlan,
    passed: frozenset[bytes] | None = None,
) -> list[Header]:
    """Return the response headers that say who answered and why, and the backend's that pass."""
    scored, decision = opened.scored, made.decision
    head = [
        (_MODEL, scored.model.encode("latin-1")),
        (_BACKEND, opened.backend.label.encode("latin-1")),
        (_POLICY, decision.policy.encode("latin-1")),
        (_SCORE, b"%.6g" % scored.score),
        (_PREDICTED_SECONDS, b"%.6g" % scored.predicted_seconds),
        (_PREDICTED_JOULES, b"%.6g" % scored.predicted_joules),
        (_ATTEMPTS, b"%d" % len(record.attempts)),
        (_DECISION_US, b"%.1f" % (made.seconds * 1e6)),
    ]
    if not decision.feasible:
        head.append((_FEASIBLE, b"false"))
    explored = decision.exploration
    if explored is not None and explored.explored:
        head.append((_EXPLORED, b"true"))
    if record.received.load_format:
        told = opened.answer.get_header(names.LOAD)
        if told is not None:
            head.append((_LOAD, told.encode("latin-1")))
    if record.hold is not None:
        head += record.hold.build_headers()
    if passed is not None:
        head += select_headers(opened.answer.headers, passed)
    return head


_MODEL = names.MODEL.encode()
_BACKEND = names.BACKEND.encode()
_POLICY = names.POLICY.encode()
_SCORE = names.SCORE.encode()
_PREDICTED_SECONDS = names.PREDICTED_SECONDS.encode()
_PREDICTED_JOULES = names.PREDICTED_JOULES.encode()
_ATTEMPTS = names.ATTEMPTS.encode()
_DECISION_US = names.DECISION_US.encode()
_EXPLORED = names.EXPLORED.encode()
_FEASIBLE = names.FEASIBLE.encode()
_LOAD = names.LOAD.encode()


def note_upstream_response(
    record: RequestRecord, opened: UpstreamResponse, snapshot: RoutingSnapshot
) -> None:
    """Note who answers, and what was predicted of it.

    The time to the first token is what the prompt is predicted to take and what was to wait for;
    the time per token is what one more token adds.
    """
    scored = opened.scored
    option = snapshot.by_name[scored.model, scored.deployment].option
    sequences = record.sequences
    each_in, each_out = sequences.find_mean_tokens(scored.tokens_in, scored.tokens_out)
    running = scored.running + sequences.total - 1
    per_token = max(option.seconds.cost_per_output_token(each_in, running, each_out), 0.0)
    record.answered = AnsweredRequest(
        scored.model,
        scored.deployment,
        opened.backend.label,
        option,
        opened.running,
        scored.predicted_seconds,
        scored.predicted_joules,
        max(COST_FLOOR, scored.predicted_seconds - per_token * (each_out - 1)),
        per_token,
    )


def note_served(
    record: RequestRecord,
    opened: UpstreamResponse,
    snapshot: RoutingSnapshot,
    ttft_seconds: float | None,
) -> None:
    """Note what an answer took, whole or not, and the joules that its tokens are predicted to cost.

    A stream that ended early has no usage; its chunks, about a token each, stand in.
    """
    scored, stream = opened.scored, opened.stream
    usage: TokenUsage | None = None
    if stream is not None:
        usage, tokens_out = stream.usage, stream.chunks
    else:
        usage, tokens_out = (opened.unary or UnaryResponse()).usage, scored.tokens_out
    prompt = completion = cached = None
    if usage is not None:
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        cached = usage.cached_tokens
    if completion is not None:
        tokens_out = completion
    option = snapshot.by_name[scored.model, scored.deployment].option
    joules = record.sequences.predict_joules(
        option.joules, prompt or scored.tokens_in, tokens_out, scored.running
    )
    record.served = ServedRequest(
        prompt,
        completion,
        cached,
        ttft_seconds,
        opened.ended - opened.began,
        joules,
        opened.mean_running,
        opened.harmonic_running,
    )
