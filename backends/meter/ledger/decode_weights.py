"""What one generated token weighs against another: by the joules that profiling gave its model.

PURE: no clock, no I/O.

Rules:
- A token costs its own part, a part for each token of context that it reads, and a share of its
  step's fixed part, which those of its backend share who are there with it (shared_steps.py).
- Where nothing tells tokens apart (one backend, no cost of context, nobody came or went) all weigh
  the same.
- Of several backends each has to say how its cost depends on company; where one cannot, tokens
  are weighed by what is known and the interval is coarse for all of them.
- Weights come from profiling each model alone, never from joules that were themselves divided.
"""

from collections.abc import Sequence
from typing import NamedTuple

from backends.meter.ledger.intervals import EnergyInterval
from backends.meter.ledger.request import RequestTimeline
from backends.meter.ledger.shared_steps import SharedSteps, is_throughout

_SHARED = 2


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
    if not several and not any(_differs(span, requests[n]) for n in places):
        return None, False
    steps = _share_steps(span, [requests[n] for n in places])
    weights = {
        n: _weight(span, requests[n], steps[requests[n].backend])
        for n in places
        if requests[n].decode_cost
    }
    coarse = several and (
        len(weights) < len(places) or any(requests[n].decode_cost[_SHARED] < 0 for n in places)
    )
    if not weights or not any(weights.values()):
        return None, coarse
    mean = sum(weights.values()) / len(weights)
    return {n: weights.get(n, mean) for n in places}, coarse


def _differs(span: EnergyInterval, request: RequestTimeline) -> bool:
    """Whether its tokens may weigh other than those of its backend beside it."""
    if not request.decode_cost:
        return False
    _, per_context, shared = request.decode_cost
    return per_context > 0 or (shared > 0 and not is_throughout(span, request))


def _weight(span: EnergyInterval, request: RequestTimeline, steps: SharedSteps) -> float:
    """Nanojoules of one of its tokens in this span, as profiled."""
    own, per_context, shared = request.decode_cost
    weight = float(own)
    if per_context:
        weight += per_context * (
            request.reported_prompt_tokens + request.count_tokens_at(span.end_us)
        )
    if shared > 0:
        weight += shared * steps.find_share(request)
    return weight


def _share_steps(
    span: EnergyInterval, requests: Sequence[RequestTimeline]
) -> dict[str, SharedSteps]:
    """The steps of each backend."""
    found: dict[str, list[RequestTimeline]] = {}
    for request in requests:
        found.setdefault(request.backend, []).append(request)
    return {backend: SharedSteps(span, those) for backend, those in found.items()}
