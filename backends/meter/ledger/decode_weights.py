"""What one generated token weighs against another: by the joules that profiling gave its model.

PURE: no clock, no I/O.

Rules:
- A token costs its own part, a part for each token of context that it reads, and a share of its
  step's fixed part, which those of its backend share that have tokens in the interval.
- Where nothing tells tokens apart (one backend, no cost of context) all weigh the same.
- Of several backends each has to say how its cost depends on company; where one cannot, tokens
  are weighed by what is known and the interval is coarse for all of them.
- Weights come from profiling each model alone, never from joules that were themselves divided.
"""

from collections.abc import Sequence
from typing import NamedTuple

from backends.meter.ledger.intervals import EnergyInterval
from backends.meter.ledger.request import RequestTimeline

_CONTEXT, _SHARED = 1, 2


class DecodeCost(NamedTuple):
    """A generated token's energy as profiled, in nanojoules."""

    own_nanojoules: int
    context_nanojoules: int = 0
    """For each token of prompt and answer before it."""
    shared_nanojoules: int = -1
    """Of a whole step; negative where the profile does not know what company does."""


def weigh_tokens(
    span: EnergyInterval, requests: Sequence[RequestTimeline], generated: Sequence[float]
) -> tuple[dict[int, float] | None, bool]:
    """Return weights by place in `requests`, None where all are equal; and whether that is coarse.

    Places without tokens are left out.
    """
    places = [n for n, request in enumerate(requests) if generated[n]]
    backends = {requests[n].backend for n in places}
    several = len(backends) > 1
    if not several and not any(_reads_context(requests[n]) for n in places):
        return None, False
    company = _company(span, [requests[n] for n in places])
    weights = {n: _weight(span, requests[n], company) for n in places if requests[n].decode_cost}
    coarse = several and (
        len(weights) < len(places) or any(requests[n].decode_cost[_SHARED] < 0 for n in places)
    )
    if not weights or not any(weights.values()):
        return None, coarse
    mean = sum(weights.values()) / len(weights)
    return {n: weights.get(n, mean) for n in places}, coarse


def _reads_context(request: RequestTimeline) -> bool:
    return bool(request.decode_cost) and request.decode_cost[_CONTEXT] > 0


def _weight(span: EnergyInterval, request: RequestTimeline, company: dict[str, float]) -> float:
    """Nanojoules of one of its tokens in this span, as profiled."""
    own, per_context, shared = request.decode_cost
    weight = float(own)
    if per_context:
        weight += per_context * (
            request.reported_prompt_tokens + request.count_tokens_at(span.end_us)
        )
    if shared > 0:
        weight += shared / company[request.backend]
    return weight


def _company(span: EnergyInterval, requests: Sequence[RequestTimeline]) -> dict[str, float]:
    """How many decoded at a time at each backend, at least one."""
    width_us = span.end_us - span.start_us
    found: dict[str, float] = {}
    for request in requests:
        from_us = max(span.start_us, min(request.prefilled_us, span.end_us))
        overlap_us = min(span.end_us, request.end_us) - from_us
        found[request.backend] = found.get(request.backend, 0.0) + max(overlap_us, 0) / width_us
    return {backend: max(count, 1.0) for backend, count in found.items()}
