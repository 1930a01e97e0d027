"""What a meter is told of one attempt: when it was sent, how far it came, when it was over.

vLLM's own timings (--enable-per-request-metrics) are used where an answer carries them; without
them the first token of a whole answer is put where the seconds' regression would have it.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw

from backends.meter.client.request_handle import Metered
from backends.registry import Backend
from gateway.scheduling.decide import Option
from gateway.scheduling.decision import Scored
from gateway.service.client.cancellation import Lifeline
from gateway.service.request.routing_table import Place
from gateway.service.upstream.relay import Stream, Whole
from gateway.service.upstream.sse import UNREADABLE, Usage
from gateway.telemetry.record import Record, Wasted

_MOST_MILLISECONDS: Final = 1e9
_LEAST_TOKEN_SECONDS: Final = 1e-4


def begin(backend: Backend, place: Place, scored: Scored) -> Metered | None:
    """Note that a request is being sent; None where the backend has no meter."""
    if backend.meter is None:
        return None
    prompt = scored.tokens_in
    return backend.meter.begin(prompt, place.prefill_joules(prompt), place.decode_cost)


def answering(metered: Metered, record: Record, stream: Stream, lifeline: Lifeline) -> None:
    """Note that a stream's first content is there."""
    _owe(metered, record, record)
    metered.streams(stream, lifeline)


def streamed(metered: Metered, stream: Stream) -> None:
    """Note that a stream is over, whole or not."""
    metered.queue_seconds = _timings(stream.timings).get("queue_time")
    usage = stream.usage or Usage()
    metered.end(
        tokens=usage.completion_tokens,
        prompt_tokens=usage.prompt_tokens or None,
        cached_tokens=usage.cached_tokens,
    )


def answered(metered: Metered, record: Record, whole: Whole, option: Option) -> None:
    """Note that a whole answer has come at once."""
    _owe(metered, record, record)
    usage = whole.usage or Usage()
    timings = _timings(whole.metrics)
    first, rest = timings.get("time_to_first_token"), timings.get("generation_time")
    metered.queue_seconds = timings.get("queue_time")
    tokens = usage.completion_tokens or 0
    if first is not None and rest is not None and first + rest > 0.0:
        share = first / (first + rest)
    else:
        share = _share(option, usage.prompt_tokens, tokens)
    metered.end(
        tokens=tokens,
        prompt_tokens=usage.prompt_tokens or None,
        cached_tokens=usage.cached_tokens,
        first_share=share,
    )


def failed(
    metered: Metered, record: Record, wasted: list[Wasted], option: Option, seconds: float
) -> None:
    """Note that an attempt is over without an answer; `wasted` where it was worked on.

    Nobody saw its tokens: they are guessed by the `seconds` it took, and its joules are estimated.
    """
    if wasted:
        _owe(metered, record, wasted[0])
        per_token = option.seconds.per_token(metered.prompt_tokens, record.running)
        decoding = seconds - option.seconds.predict(metered.prompt_tokens, 0, record.running)
        guess = max(0.0, decoding) / max(per_token, _LEAST_TOKEN_SECONDS)
        metered.leave(min(round(guess), option.context))
    else:
        metered.refused()


def _owe(metered: Metered, record: Record, target: Record | Wasted) -> None:
    """Have the joules that the meter will tell entered in `target`."""
    metered.owner = (record, target)
    record.unsettled += 1


def _share(option: Option, tokens_in: int, tokens_out: int) -> float:
    """Return the part of a request's seconds that its prompt is predicted to take."""
    whole = option.seconds.predict(tokens_in, tokens_out)
    return min(1.0, option.seconds.predict(tokens_in, 0) / whole)


def _timings(raw: Raw) -> dict[str, float]:
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
