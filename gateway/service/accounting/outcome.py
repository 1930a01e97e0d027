"""What an upstream response adds to the record, and the response headers made of it."""

from backends.sse import TokenUsage
from gateway.scheduling.cost import COST_FLOOR
from gateway.service.client import headers as names
from gateway.service.client.response import Header
from gateway.service.request.plan import RoutingPlan
from gateway.service.request.routing_table import RoutingSnapshot
from gateway.service.upstream.dispatcher import UpstreamResponse
from gateway.telemetry.record import ESTIMATED, RequestRecord


def build_response_headers(
    record: RequestRecord, opened: UpstreamResponse, made: RoutingPlan
) -> list[Header]:
    """Return the response headers that say who answered and why."""
    scored = opened.scored
    pairs = [
        (_MODEL, scored.model),
        (_BACKEND, opened.backend.label),
        (_POLICY, made.decision.policy),
        (_SCORE, f"{scored.score:.6g}"),
        (_PREDICTED_SECONDS, f"{scored.predicted_seconds:.6g}"),
        (_PREDICTED_JOULES, f"{scored.predicted_joules:.6g}"),
        (_ATTEMPTS, str(len(record.attempts))),
        (_DECISION_US, f"{made.seconds * 1e6:.1f}"),
    ]
    if not made.decision.feasible:
        pairs.append((_FEASIBLE, "false"))
    return [(name, value.encode()) for name, value in pairs]


_MODEL = names.MODEL.encode()
_BACKEND = names.BACKEND.encode()
_POLICY = names.POLICY.encode()
_SCORE = names.SCORE.encode()
_PREDICTED_SECONDS = names.PREDICTED_SECONDS.encode()
_PREDICTED_JOULES = names.PREDICTED_JOULES.encode()
_ATTEMPTS = names.ATTEMPTS.encode()
_DECISION_US = names.DECISION_US.encode()
_FEASIBLE = names.FEASIBLE.encode()


def note_upstream_response(
    record: RequestRecord, opened: UpstreamResponse, snapshot: RoutingSnapshot
) -> None:
    """Note who answers, and what was predicted of it.

    The time to the first token is what the prompt is predicted to take and what was to wait for;
    the time per token is what one more token adds.
    """
    scored = opened.scored
    record.option = snapshot.by_name[scored.model, scored.deployment].option
    seconds = record.option.seconds
    per_token = max(
        seconds.cost_per_output_token(scored.tokens_in, scored.running, scored.tokens_out), 0.0
    )
    record.predicted_tpot_seconds = per_token
    record.predicted_ttft_seconds = max(
        COST_FLOOR, scored.predicted_seconds - per_token * (scored.tokens_out - 1)
    )
    record.model = scored.model
    record.deployment = scored.deployment
    record.backend = opened.backend.label
    record.predicted_seconds = scored.predicted_seconds
    record.predicted_joules = scored.predicted_joules
    record.running = opened.running


def note_usage(record: RequestRecord, usage: TokenUsage | None) -> None:
    """Note the tokens that the backend counted."""
    if usage is None:
        return
    record.prompt_tokens = usage.prompt_tokens
    record.completion_tokens = usage.completion_tokens
    record.cached_tokens = usage.cached_tokens


def estimate_joules(
    record: RequestRecord, opened: UpstreamResponse, snapshot: RoutingSnapshot
) -> None:
    """Fill in the joules that the regression gives for the tokens there really were.

    A stream that ended early has no usage; its chunks, about a token each, stand in.
    """
    scored = opened.scored
    tokens_in = record.prompt_tokens or scored.tokens_in
    tokens_out = record.completion_tokens
    if tokens_out is None:
        tokens_out = opened.stream.chunks if opened.stream is not None else scored.tokens_out
    option = snapshot.by_name[scored.model, scored.deployment].option
    record.joules = option.joules.predict_cost(tokens_in, tokens_out, scored.running)
    record.method = ESTIMATED


def name_last_attempt(record: RequestRecord) -> None:
    """Put a request that nobody answered down to whom it was last sent."""
    if not record.model and record.attempts:
        last = record.attempts[-1]
        record.model, record.backend = last.model, last.backend
