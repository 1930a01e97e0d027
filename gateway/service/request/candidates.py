"""Who could serve a request at this moment: each deployment with its places at their loads."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from backends.registry import Backend, Deployment
from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.candidate import CandidatePlace, LearntLength, RoutingCandidate
from gateway.scheduling.decision import DEFAULT_QUANTILE
from gateway.scheduling.features import RequestFeatures
from gateway.scheduling.placement import (
    PREFIX,
    BackendView,
    PlacementRules,
    find_holder,
    find_places,
)
from gateway.scheduling.prefix_holders import NOTHING_CACHED, NOTHING_HELD
from gateway.scheduling.tuple_maker import tuple_maker
from gateway.service.request.deciding import Deciding
from gateway.service.request.prompt_reader import ReadPrompt
from gateway.service.request.routing_table import RoutingSnapshot

SelectedBackends = dict[tuple[str, str], Backend]
"""The backend that each (model, deployment) would send the request to."""


class Found(NamedTuple):
    """The candidates of a request as they are at this moment.

    `bases` holds what each one's answer was expected to be without learning.
    """

    candidates: list[RoutingCandidate]
    picks: SelectedBackends
    bases: dict[tuple[str, str], AnswerLength]


def list_candidates(
    snapshot: RoutingSnapshot,
    model: str | None,
    features: RequestFeatures,
    deciding: Deciding,
    application: str = "",
    read: ReadPrompt | None = None,
    quantile: float = DEFAULT_QUANTILE,
    *,
    held: Mapping[tuple[str, str], Mapping[str, int]] = NOTHING_HELD,
    last_resort: bool = False,
    allowed: frozenset[str] | None = None,
) -> Found:
    """Return the candidates of one model, or of all, each with its places at their loads.

    Where load changes no cost the place is the less busy of two drawn at random; `picks` has those.
    `held` are the tokens of the conversation that each deployment's backends have answered.
    `read` is the prompt's text, for models of it, whose accuracies are judged at `quantile`.
    `last_resort`: none is available, and those count that may be asked for want of another.
    `allowed`: the models of which alone they may be.
    """
    found: list[RoutingCandidate] = []
    picks: SelectedBackends = {}
    bases: dict[tuple[str, str], AnswerLength] = {}
    learnt, prompts = deciding.learnt, features.prompts
    prefixes = None if learnt is None or not held else learnt.prefixes
    cached = NOTHING_CACHED
    for option, deployment, *_ in snapshot.routed_deployments:
        if (model is not None and option.model != model) or (
            allowed is not None and option.model not in allowed
        ):
            continue
        scale = None if learnt is None else learnt.predict_scale(option)
        tokens_in = features.scale(scale or option.scale)
        each_in = tokens_in / prompts
        if option.words is not None and read is not None:
            base = option.words.predict(read.text)
        else:
            base = option.output.describe(each_in)
        bases[option.name] = base
        length = None if learnt is None else learnt.predict_length(option, application, base)
        if length is None and read is not None and option.words is not None:
            length = LearntLength(base, WORDS)
        judged = None if read is None else read.predict_accuracy(option, quantile)
        if prefixes is not None:
            cached = prefixes.estimate_cached(option.name, held)
        places: tuple[CandidatePlace, ...] = ()
        if option.depends_on_load:
            expected = base if length is None else length.length
            places = find_places(
                [
                    _view(backend, usable=deployment.can_ask(backend, last_resort=last_resort))
                    for backend in deployment.backends
                ],
                option.seconds,
                tokens_in=each_in,
                tokens_out=math.exp(min(expected.mu, _MOST_MU)),
                rules=deciding.rules,
                cached=cached,
            )
        up, full = True, False
        if not places:
            backend = deployment.pick_backend(last_resort=last_resort)
            if backend is None:
                up, full = False, deployment.is_full
            else:
                places = _join_holder(backend, deployment, cached, deciding.rules)
                if len(places) == 1:
                    picks[option.name] = backend
        # What vLLM cuts off a prompt changes what is to be expected of its answer.
        whole = base if features.truncate_tokens is None else None
        found.append(
            _make_candidate(
                (option, 0, up, 0, places, length, scale, judged, full, tokens_in, whole)
            )
        )
    return Found(found, picks, bases)


def _join_holder(
    drawn: Backend, deployment: Deployment, cached: Mapping[str, int], rules: PlacementRules
) -> tuple[CandidatePlace, ...]:
    """Return the place that was drawn, and the holder of the conversation's beginning."""
    running, queued = drawn.running_and_queued
    if not cached:
        return (_make_place((drawn.label, DRAWN, running, queued, 0)),)
    place = CandidatePlace(drawn.label, DRAWN, running, queued, cached.get(drawn.label, 0))
    usable = [_view(b, usable=True) for b in deployment.backends if deployment.can_ask(b)]
    holder = find_holder(usable, cached, rules)
    if holder is None or holder.backend == drawn.label:
        return (place,)
    running, queued, tokens = holder.running, holder.queued, cached[holder.backend]
    return (place, CandidatePlace(holder.backend, PREFIX, running, queued, tokens))


DRAWN = "drawn"
"""Why a place was taken where load changes no cost: the less busy of two."""
WORDS = "words"
"""The source of a length that the prompt's words told."""
_MOST_MU = 20.0
_make_candidate = tuple_maker(RoutingCandidate)
_make_place = tuple_maker(CandidatePlace)


def _view(backend: Backend, *, usable: bool) -> BackendView:
    running, queued = backend.running_and_queued
    others, seen, age_seconds = backend.last_seen
    return BackendView(
        backend.label, running, queued, usable, backend.prompt_tokens,
        backend.cache_usage, others, seen, age_seconds,
    )  # fmt: skip
