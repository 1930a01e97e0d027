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

from backends.vllm.recipes import RECIPES
from calibration.arrays import Floats
from calibration.replay.decision_log_reader import LoggedDeployment, RecordedRequest
from calibration.stats.design import build_columns
from calibration.tables.columns import BadInput
from gateway.profile import CostProfile, ModelProfile
from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.candidate import LearntLength
from gateway.scheduling.cost import COST_FLOOR, CostQuantity
from gateway.scheduling.decide import (
    DEFAULT_POLICY,
    DeploymentOption,
    RoutingCandidate,
    make_decision,
)
from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.features import RequestFeatures, TokenScale

Ints = NDArray[np.intp]

UNLIMITED: Final = 1 << 30
DEFAULT_WEIGHTS: Final = MetricWeights.from_values(0.5, 0.3, 0.2)
_TERMS: Final = 5
_LEARNT: Final = frozenset({"application", "model", "words"})


@dataclass(frozen=True, slots=True)
class ReplayScenario:
    """What to run the requests through; weights or policy None: each request's own."""

    name: str
    profile: CostProfile
    weights: MetricWeights | None = None
    policy: str | None = None


class ReplayFleet:
    """The deployments under one profile."""

    def __init__(
        self,
        profile: CostProfile,
        keys: Mapping[LoggedDeployment, str],
        contexts: Mapping[str, int],
    ) -> None:
        """`keys` maps each place to its model in the profile. Raises ProfileError."""
        self.profile = profile
        self.deployments = list(keys)
        self.models = list(dict.fromkeys(place.model for place in keys))
        self.entries = {place: profile.get_model(key) for place, key in keys.items()}
        self.options = {
            place: _build_option(
                place, self.entries[place], _find_context_tokens(place, keys[place], contexts)
            )
            for place in keys
        }

    def list_candidates(self, request: RecordedRequest) -> list[RoutingCandidate]:
        """Return who could have served a request."""
        running = request.running
        return [
            RoutingCandidate(
                option,
                running.get(place, 0) if running else 0,
                learnt=self._learnt(request, place),
                scale=self._scale(request, place),
            )
            for place, option in self.options.items()
            if running is None or place not in request.excluded
        ]

    def _learnt(self, request: RecordedRequest, place: LoggedDeployment) -> LearntLength | None:
        """Return the length that was decided by: always by the same profile, else if learnt."""
        logged = (request.tokens or {}).get(place)
        if logged is None or (
            logged.source not in _LEARNT and request.profile_version != self.profile.version
        ):
            return None
        return LearntLength(AnswerLength(logged.mu, logged.sigma), logged.source)

    def _scale(self, request: RecordedRequest, place: LoggedDeployment) -> TokenScale | None:
        logged = (request.tokens or {}).get(place)
        return None if logged is None else TokenScale(0.0, 0.0, float(logged.input))

    def build_features(self, request: RecordedRequest) -> RequestFeatures:
        """Return what the gateway knew when it decided."""
        counted = self.options.get(request.counted_for) if request.counted_for else None
        if request.tokens is not None:
            return RequestFeatures(
                request.counted_tokens or request.tokens_in, request.asked_tokens_out
            )
        tokens_in = round(request.tokens_in / counted.ratio) if counted else request.tokens_in
        asked = request.asked_tokens_out
        told = request.predicted_tokens_out
        if asked is None and told and counted and request.profile_version == self.profile.version:
            # The log has no max_tokens; an expectation below the profile's own line shows it.
            room = counted.context - request.tokens_in
            free = counted.output.predict_output_tokens(request.tokens_in, room)
            asked = told if told < free else None
        return RequestFeatures(max(1, tokens_in), asked)


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


def map_profile_keys(
    requests: Sequence[RecordedRequest], profiles: Sequence[CostProfile], names: Mapping[str, str]
) -> dict[LoggedDeployment, str]:
    """Return every place to consider and its key in the profiles.

    Those of the log, else the first profile's models; with `names` (model -> key) exactly these.
    Raises BadInput for one that a profile lacks.
    """
    places: dict[LoggedDeployment, None] = {}
    for request in requests:
        places.update(dict.fromkeys(request.running or ()))
        if request.answered:
            places[request.answered] = None
    if not places:
        places = dict.fromkeys(LoggedDeployment(name, name) for name in names or profiles[0].models)
    elif names:
        logged = {place.model for place in places}
        places = {place: None for place in places if place.model in names}
        places.update({LoggedDeployment(name, name): None for name in names if name not in logged})
    found = {}
    for place in places:
        wanted = names.get(place.model)
        options = [wanted] if wanted else [place.deployment, place.model]
        for profile in profiles:
            key = next((one for one in options if one in profile.models), None)
            if key is None:
                have = ", ".join(sorted(profile.models))
                raise BadInput(
                    f"no model {options[-1]!r} in profile {profile.version} (it has: {have}); "
                    f"--model {place.model}=KEY says which it is; --model A --model B leaves the "
                    "others out"
                )
        found[place] = str(key)
    return found


def _build_option(place: LoggedDeployment, entry: ModelProfile, context: int) -> DeploymentOption:
    return DeploymentOption(
        model=place.model,
        deployment=place.deployment,
        accuracy=entry.accuracy.default,
        seconds=entry.seconds.to_cost_function(CostQuantity.SECONDS),
        joules=entry.joules.to_cost_function(CostQuantity.JOULES),
        context=context,
        output=entry.to_output_model(),
        ratio=entry.tokens.ratio,
    )


def _find_context_tokens(place: LoggedDeployment, key: str, contexts: Mapping[str, int]) -> int:
    """Return the context in tokens: as said, or as shipped; else no limit."""
    if place.model in contexts:
        return contexts[place.model]
    recipe = RECIPES.get(place.model) or RECIPES.get(key)
    return recipe.context_tokens if recipe else UNLIMITED
