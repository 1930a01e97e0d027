"""Counterfactual replay: recorded requests under other weights, policies and profiles.

Rules:
- A choice is made from what the gateway knows when it decides: its count of tokens in, the
  profile's expected tokens out, the requests then running. It is priced at the lengths that were
  recorded, where they were, for every model alike.
- A request keeps its own candidates; what could not serve it then cannot now.
- Everything is priced by the profile of its scenario, the recorded choice too, so that two sums
  differ by the choices alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibration.arrays import Floats
from calibration.replay.decision_log_reader import LoggedDeployment, RecordedRequest
from calibration.replay.replay_fleet import ReplayFleet
from calibration.stats.design import build_columns
from gateway.profile import CostProfile
from gateway.scheduling.cost import COST_FLOOR, CostQuantity
from gateway.scheduling.decide import (
    DEFAULT_POLICY,
    RoutingCandidate,
    make_decision,
)
from gateway.scheduling.decision import MetricWeights

Ints = NDArray[np.intp]

DEFAULT_WEIGHTS: Final = MetricWeights.from_values(0.5, 0.3, 0.2)
_TERMS: Final = 5


@dataclass(frozen=True, slots=True)
class ReplayScenario:
    """What to run the requests through; weights or policy None: each request's own."""

    name: str
    profile: CostProfile
    weights: MetricWeights | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class RequestLengths:
    """Tokens and load of each request (rows) on each place (columns), for pricing."""

    tokens_in: Floats
    tokens_out: Floats
    running: Floats
    recorded: int
    """Requests whose lengths were recorded; the others' are expected ones."""


@dataclass(frozen=True, slots=True)
class RequestPrices:
    """Seconds and joules of each request (rows) on each place (columns), and their terms."""

    seconds: Floats
    joules: Floats
    terms: Mapping[CostQuantity, Floats]
    """Requests x places x 5: what each coefficient is multiplied by; 0 where floored."""
    accuracy: Floats
    floored: int


def compute_lengths(
    world: ReplayFleet, requests: Sequence[RecordedRequest], *, predicted: bool = False
) -> RequestLengths:
    """Return the lengths to price by: as recorded unless `predicted`, scaled by token ratios."""
    shape = (len(requests), len(world.deployments))
    tokens_in, tokens_out, running = np.empty(shape), np.empty(shape), np.zeros(shape)
    recorded = 0
    ratios = np.array([option.ratio for option in world.options.values()])
    for at, request in enumerate(requests):
        features = world.build_features(request)
        told = request.prompt_tokens if request.answered in world.options else None
        base = float(features.tokens_in)
        if told and request.answered and not predicted:
            base = told / world.options[request.answered].ratio
        tokens_in[at] = np.maximum(1, np.round(base * ratios))
        logged = (request.tokens or {}).get(request.answered) if request.answered else None
        if logged is not None and request.tokens is not None:
            # What each model was taken to count then, by as much as the answering one was off.
            off = told / logged.input if told and not predicted else 1.0
            for column, place in enumerate(world.deployments):
                if place in request.tokens:
                    tokens_in[at, column] = max(1, round(request.tokens[place].input * off))
        if request.running:
            running[at] = [request.running.get(place, 0) for place in world.deployments]
        if request.tokens_out and told and not predicted:
            tokens_out[at] = request.tokens_out
            recorded += 1
            continue
        for column, option in enumerate(world.options.values()):
            own = int(tokens_in[at, column])
            room = max(1, option.context - own)
            asked = features.asked_tokens_out
            tokens_out[at, column] = option.output.predict_output_tokens(
                own, room if asked is None else min(asked, room)
            )
    return RequestLengths(tokens_in, tokens_out, running, recorded)


def count_outgrown(world: ReplayFleet, sizes: RequestLengths) -> dict[str, int]:
    """Return how many requests do not fit a model's context, where there are such."""
    found: dict[str, int] = {}
    for at, (place, option) in enumerate(world.options.items()):
        count = int((sizes.tokens_in[:, at] + sizes.tokens_out[:, at] > option.context).sum())
        if count:
            found[place.model] = max(count, found.get(place.model, 0))
    return found


def compute_prices(world: ReplayFleet, sizes: RequestLengths) -> RequestPrices:
    """Price every request on every place."""
    found: dict[CostQuantity, Floats] = {}
    terms: dict[CostQuantity, Floats] = {}
    floored = np.zeros(sizes.tokens_in.shape, dtype=bool)
    for quantity in CostQuantity:
        rows = np.zeros((*sizes.tokens_in.shape, _TERMS))
        coefficients = np.zeros((len(world.deployments), _TERMS))
        for at, entry in enumerate(world.entries.values()):
            fitted = getattr(entry, quantity.value)
            b = fitted.coefficients
            coefficients[at, : len(b)] = b
            lengths = (sizes.tokens_in[:, at], sizes.tokens_out[:, at], sizes.running[:, at])
            rows[:, at, : len(b)] = build_columns(fitted.form, quantity, *lengths)
        raw = np.einsum("rpt,pt->rp", rows, coefficients)
        low = raw < COST_FLOOR
        floored |= low
        found[quantity] = np.maximum(raw, COST_FLOOR)
        terms[quantity] = np.where(low[:, :, None], 0.0, rows)
    accuracy = np.array([option.accuracy for option in world.options.values()])
    return RequestPrices(
        found[CostQuantity.SECONDS], found[CostQuantity.JOULES], terms, accuracy, int(floored.sum())
    )


def choose_deployments(
    world: ReplayFleet,
    requests: Sequence[RecordedRequest],
    scenario: ReplayScenario,
    *,
    only: str | None = None,
    on_row: Callable[[], None] = lambda: None,
) -> Ints:
    """Return the column of the place chosen for each request, -1 where none can serve it.

    `only` restricts to one model's places, as a client that names it does: whether the request
    fits its context is then not asked (`count_outgrown` counts it).
    """
    columns = {place: at for at, place in enumerate(world.deployments)}
    chosen = np.full(len(requests), -1, dtype=np.intp)
    alone = [place for place in world.deployments if place.model == only]
    if len(alone) == 1:
        chosen[:] = columns[alone[0]]
        return chosen
    for at, request in enumerate(requests):
        on_row()
        candidates = world.list_candidates(request)
        features = world.build_features(request)
        if only is not None:
            candidates = [RoutingCandidate(world.options[place]) for place in alone]
            features = replace(features, lenient=True)
        best = make_decision(
            features,
            candidates,
            scenario.weights or request.weights or DEFAULT_WEIGHTS,
            policy=scenario.policy or request.policy or DEFAULT_POLICY,
            reference_load=request.reference_load,
        ).best_candidate
        if best is not None:
            chosen[at] = columns[LoggedDeployment(best.model, best.deployment)]
    return chosen


def find_recorded_choices(world: ReplayFleet, requests: Sequence[RecordedRequest]) -> Ints | None:
    """Return the column of the place that answered each request; None where nothing tells."""
    columns = {place: at for at, place in enumerate(world.deployments)}
    found = [columns.get(one.answered, -1) if one.answered else -1 for one in requests]
    return np.array(found, dtype=np.intp) if any(at >= 0 for at in found) else None
