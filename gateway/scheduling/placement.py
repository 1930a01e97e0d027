"""Where within a deployment: the places worth considering, from plain numbers. No randomness.

Rules of this file:

- Energy packs, time spreads: a decode step reads the weights once whatever the batch, so the
  fullest backend that is still quick is the cheapest place, the emptiest the fastest. Both are
  offered, and the holder of the conversation's beginning, with its tokens not charged; the
  weights choose.
- *Full* means: one more would lift the time per token above `max_slowdown` times that of a
  request alone, or its prompts, its queue or its cache are at their bounds.
- Of backends that are about as full the first in the config's order is taken, so that all
  gateways fill the same one. One that is clearly fuller is kept: changing over costs its lead.
- What others may have sent since a gauge was read is added to the load: no more than they send in
  that time, and no more than their share of the room that there was.
- A deployment whose costs do not depend on load has nothing to pack: its callers take the less
  busy of two drawn at random instead, which is not for a file without randomness.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gateway.scheduling.candidate import CandidatePlace
from gateway.scheduling.cost import COST_FLOOR, CostFunction
from gateway.scheduling.prefix_holders import NOTHING_CACHED

FULLEST = "fullest"
EMPTIEST = "emptiest"
PREFIX = "prefix"

_MOST_RUNNING = 4096
_SLACK_SHARE = 0.1
_SLACK_LEAST = 2


class PlacementMode(StrEnum):
    """Who chooses among the places: the request's weights, or always the same way."""

    WEIGHTS = "weights"
    PACK = "pack"
    SPREAD = "spread"


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """When a backend counts as full; `max_slowdown` is time per token against that of one alone."""

    mode: PlacementMode = PlacementMode.WEIGHTS
    max_slowdown: float = 1.2
    min_backends: int = 1
    max_prompt_tokens: int = 16_384
    max_cache_usage: float = 0.9
    affinity: bool = True
    """Whether what a prefix cache holds counts."""


class BackendView(NamedTuple):
    """One backend as its gateway sees it now.

    `running` and `queued` are everybody's requests, `others` those of them that the gauges showed
    beyond this gateway's own and `seen` all that were there then, `age_seconds` ago;
    `prompt_tokens` have been sent there and not yet been answered by a first token; `cache_usage`
    is the share of the KV cache in use.
    """

    backend: str
    running: int
    queued: int = 0
    usable: bool = True
    prompt_tokens: int = 0
    cache_usage: float = 0.0
    others: int = 0
    seen: int = 0
    age_seconds: float = 0.0


class _Unseen(NamedTuple):
    """What others send to the fleet: requests a second, and their share of all."""

    arrivals: float
    share: float


def find_capacity(seconds: CostFunction, tokens_in: float, max_slowdown: float) -> int:
    """Return how many others may run beside a request before it is `max_slowdown` times as slow.

    The largest r with per_token(r) <= max_slowdown x per_token(0); seconds are linear in r.
    """
    alone = seconds.cost_per_output_token(tokens_in, 0)
    each = seconds.cost_per_output_token(tokens_in, 1) - alone
    if alone <= 0.0 or each <= 0.0:
        return _MOST_RUNNING
    return min(_MOST_RUNNING, math.floor((max_slowdown - 1.0) * alone / each + 1e-9))


def find_places(
    views: Sequence[BackendView],
    seconds: CostFunction,
    *,
    tokens_in: float,
    tokens_out: float,
    rules: PlacementRules,
    cached: Mapping[str, int] = NOTHING_CACHED,
) -> tuple[CandidatePlace, ...]:
    """Return the places to weigh, at most one a kind; () where none is usable.

    `views` stand in the config's order; `seconds` is the deployment's cost; `cached` holds the
    prompt's tokens that are expected in each backend's prefix cache.
    """
    usable = [view for view in views if view.usable]
    if not usable:
        return ()
    emptiest = min(usable, key=_busy)
    if rules.mode is PlacementMode.SPREAD or len(usable) == 1:
        return (_place(emptiest, EMPTIEST, cached),)
    capacity = find_capacity(seconds, tokens_in, rules.max_slowdown)
    # By Little's law: what others have in flight, over a request's time, arrives each second.
    others = sum(view.others for view in usable)
    request_seconds = max(COST_FLOOR, seconds.evaluate_form(tokens_in, tokens_out, capacity // 2))
    unseen = _Unseen(others / request_seconds, others / max(1, sum(map(_busy, usable))))
    within = [view for view in usable if _is_within(view, capacity, unseen, tokens_in, rules)]
    holder = find_holder(usable, cached, rules, within) if cached else None
    if not within:
        return _join_places([(emptiest, EMPTIEST)], holder, cached)
    fullest = _find_fullest(within, usable, rules)
    if rules.mode is PlacementMode.PACK:
        return (_place(fullest, FULLEST, cached),)
    found = [(fullest, FULLEST)]
    if fullest is not emptiest:
        found.append((emptiest, EMPTIEST))
    return _join_places(found, holder, cached)


def find_holder(
    usable: Sequence[BackendView],
    cached: Mapping[str, int],
    rules: PlacementRules,
    within: Sequence[BackendView] = (),
) -> BackendView | None:
    """Return the backend whose cache has most of the prompt; None: the weights may not choose it.

    It has to be `within` its bounds, or about as empty as the emptiest: else a prompt that all
    share would draw all requests to one backend. One whose cache is nearly full is about to drop
    what nobody is using. Of those that hold about as much the least busy is taken.
    """
    if rules.mode is not PlacementMode.WEIGHTS:
        return None
    least = min(map(_busy, usable), default=0)
    most_busy = least + _find_slack(least)
    holders = [
        view
        for view in usable
        if cached.get(view.backend)
        and view.cache_usage <= rules.max_cache_usage
        and (view in within or _busy(view) <= most_busy)
    ]
    most = max((cached[view.backend] for view in holders), default=0)
    alike = [view for view in holders if cached[view.backend] >= (1.0 - _SLACK_SHARE) * most]
    return min(alike, key=_busy, default=None)


def _find_fullest(
    within: Sequence[BackendView], usable: Sequence[BackendView], rules: PlacementRules
) -> BackendView:
    in_use = sum(1 for view in usable if _busy(view))
    if in_use < rules.min_backends:
        unused = next((view for view in within if not _busy(view)), None)
        if unused is not None:
            return unused
    most = max(map(_busy, within))
    return next(view for view in within if _busy(view) >= most - _find_slack(most))


def _find_slack(busy: int) -> int:
    """Return by how many requests backends may differ and be about as busy."""
    return max(_SLACK_LEAST, math.ceil(_SLACK_SHARE * busy))


def _is_within(
    view: BackendView, capacity: int, unseen: _Unseen, tokens_in: float, rules: PlacementRules
) -> bool:
    """Tell whether one more request may join what runs there."""
    if view.queued or view.cache_usage > rules.max_cache_usage:
        return False
    if view.prompt_tokens and view.prompt_tokens + tokens_in > rules.max_prompt_tokens:
        return False
    return view.running + _estimate_unseen(view, capacity, unseen) <= capacity


def _estimate_unseen(view: BackendView, capacity: int, unseen: _Unseen) -> int:
    """Return how many requests others may have sent there since its gauges were read.

    All that they send may have come here, with two standard deviations of a Poisson count; but
    they saw the same room as we did, and each is taken to leave the others theirs.
    """
    sent = unseen.arrivals * view.age_seconds
    room = max(0, capacity - view.seen)
    return min(math.ceil(sent + 2.0 * math.sqrt(sent)), math.ceil(room * unseen.share))


def _busy(view: BackendView) -> int:
    return view.running + view.queued


def _join_places(
    found: Sequence[tuple[BackendView, str]],
    holder: BackendView | None,
    cached: Mapping[str, int],
) -> tuple[CandidatePlace, ...]:
    """Return the places found, and the holder's where it is none of them."""
    places = tuple(_place(view, why, cached) for view, why in found)
    if holder is None or any(view is holder for view, _ in found):
        return places
    return (*places, _place(holder, PREFIX, cached))


def _place(view: BackendView, why: str, cached: Mapping[str, int]) -> CandidatePlace:
    return CandidatePlace(
        view.backend, why, view.running, view.queued, cached.get(view.backend, 0) if cached else 0
    )
