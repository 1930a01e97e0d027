"""Reports one attempt to the backend's meter: when it was sent, its first token, its end.

vLLM's own timings (--enable-per-request-metrics) are used where an answer carries them; without
them the first token of a unary response is placed where the seconds' regression predicts it.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw

from backends.meter.client.request_handle import MeteredAttempt
from backends.registry import Backend
from backends.sse import UNREADABLE, TokenUsage
from gateway.scheduling.decide import DeploymentOption
from gateway.scheduling.decision import ScoredCandidate
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.request.routing_table import RoutedDeployment
from gateway.service.upstream.relay import StreamedResponse, UnaryResponse
from gateway.telemetry.record import RequestRecord

_MOST_MILLISECONDS: Final = 1e9


def begin_attempt(
    backend: Backend, place: RoutedDeployment, scored: ScoredCandidate
) -> MeteredAttempt | None:
    """Note that a request is being sent; None where the backend has no meter."""
    if backend.meter is None:
        return None
    prompt = scored.tokens_in
    return backend.meter.begin_request(
        prompt, place.predict_prefill_joules(prompt), place.decode_cost
    )


def note_first_token(
    metered: MeteredAttempt,
    record: RequestRecord,
    stream: StreamedResponse,
    lifeline: RequestCancellation,
) -> None:
    """Note the first token of a stream."""
    metered.on_energy = record.expect_answer_energy()
    metered.record_first_content(stream, lifeline)


def end_streamed(metered: MeteredAttempt, stream: StreamedResponse) -> None:
    """Note the end of a stream, complete or not."""
    metered.queue_seconds = _parse_timings(stream.timings).get("queue_time")
    usage = stream.usage or TokenUsage()
    metered.end_attempt(
        tokens=usage.completion_tokens,
        prompt_tokens=usage.prompt_tokens or None,
        cached_tokens=usage.cached_tokens,
    )


def end_unary(
    metered: MeteredAttempt, record: RequestRecord, whole: UnaryResponse, option: DeploymentOption
) -> None:
    """Note a unary response."""
    metered.on_energy = record.expect_answer_energy()
    usage = whole.usage or TokenUsage()
    timings = _parse_timings(whole.metrics)
    first, rest = timings.get("time_to_first_token"), timings.get("generation_time")
    metered.queue_seconds = timings.get("queue_time")
    tokens = usage.completion_tokens or 0
    if first is not None and rest is not None and first + rest > 0.0:
        share = first / (first + rest)
    else:
        each_in, each_out = record.sequences.find_mean_tokens(usage.prompt_tokens, tokens)
        share = _predict_prompt_share(option, each_in, each_out)
    metered.end_attempt(
        tokens=tokens,
        prompt_tokens=usage.prompt_tokens or None,
        cached_tokens=usage.cached_tokens,
        first_share=share,
    )


def end_failed(metered: MeteredAttempt, record: RequestRecord, guess: int | None) -> None:
    """Note that an attempt is over without an answer; `guess` None: it was not worked on.

    Else it is the one wasted last. Nobody saw its tokens: so many are guessed, and its joules are
    estimated.
    """
    if guess is None:
        metered.record_refusal()
        return
    metered.on_energy = record.expect_wasted_energy()
    metered.leave(guess)


def _predict_prompt_share(option: DeploymentOption, tokens_in: float, tokens_out: float) -> float:
    """Return the part of a request's seconds that its prompt is predicted to take."""
    whole = option.seconds.predict_cost(tokens_in, tokens_out)
    return min(1.0, option.seconds.predict_cost(tokens_in, 0) / whole)


def _parse_timings(raw: Raw) -> dict[str, float]:
    """Return vLLM's times in seconds, by their names without `_ms`."""
    if not bytes(raw):
        return {}
    try:
        members: Any = msgspec.json.decode(raw)
    except UNREADABLE:
        return {}
    if not isinstance(members, dict):
        return {}
    return {
        name.removesuffix("_ms"): value / 1e3
        for name, value in members.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0.0 <= value <= _MOST_MILLISECONDS
    }
