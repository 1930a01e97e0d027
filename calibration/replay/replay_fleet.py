"""The deployments of a replay under one profile: which there are, and who could serve a request."""

from collections.abc import Mapping, Sequence
from typing import Final

from backends.vllm.recipes import RECIPES
from calibration.replay.decision_log_reader import LoggedDeployment, RecordedRequest
from calibration.tables.columns import BadInput
from gateway.profile import CostProfile, ModelProfile
from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.candidate import LearntLength
from gateway.scheduling.cost import CostQuantity
from gateway.scheduling.decide import (
    DeploymentOption,
    RoutingCandidate,
)
from gateway.scheduling.features import RequestFeatures, TokenScale
from gateway.scheduling.prompt_accuracy import AccuracyEstimate

UNLIMITED: Final = 1 << 30
_LEARNT: Final = frozenset({"application", "model", "words"})


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
                judged=self._judged(request, place),
            )
            for place, option in self.options.items()
            if running is None or place not in request.excluded
        ]

    def _judged(self, request: RecordedRequest, place: LoggedDeployment) -> AccuracyEstimate | None:
        """Return the accuracy that was decided by, where it was learnt, by the same profile."""
        drawn = (request.draws or {}).get(place)
        if drawn is None or request.profile_version != self.profile.version:
            return None
        return AccuracyEstimate(drawn.accuracy, drawn.accuracy)

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
