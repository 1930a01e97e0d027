"""Which deployments a requested name stands for, and what they look like to the scheduler.

A `Snapshot` joins the configured deployments with one profile; a new profile makes a new one, and
a request keeps the one it began with, so that no decision mixes two.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backends.meter.ledger.decode_weights import DecodeCost
from backends.registry import Backend, Deployment
from gateway.config import Config, ModelConfig
from gateway.profile import Profile
from gateway.scheduling.cost import Quantity
from gateway.scheduling.decide import Candidate, Option
from gateway.scheduling.decision import Weights
from gateway.service.client.errors import UnknownModel
from gateway.service.request.steering import Steering

AUTO = "auto"
PREFIX = "joulegate/"
OTHER = "other"
"""The `requested` label of every name that is not the config's."""
_MOST_NANOJOULES = 1 << 50
NO_POLICY = "none"
"""The policy of a request that named its model."""


class Place(NamedTuple):
    """One deployment, its face to the scheduler, and what its meter shares energy by."""

    option: Option
    deployment: Deployment
    prompt_joules: float
    """Per prompt token, as profiled."""
    decode_cost: DecodeCost

    def prefill_joules(self, tokens_in: int) -> float:
        """Return what profiling says that a prompt takes beside others.

        Without the intercept: that is a step's fixed part, which company shares.
        """
        return self.prompt_joules * tokens_in


class Snapshot:
    """All places under one profile; immutable."""

    def __init__(self, config: Config, deployments: Sequence[Deployment], profile: Profile) -> None:
        """Join them. Raises ProfileError where the profile lacks a model."""
        self.profile = profile
        self.places = tuple(
            _place(model, deployment, profile)
            for model, deployment in zip(config.models, deployments, strict=True)
        )
        self.by_name = {place.option.name: place for place in self.places}


class Target(NamedTuple):
    """What a requested name means: all models, or one; with the weights it starts from."""

    label: str
    model: str | None
    preset: str
    steering: Steering


class Names:
    """Every name a client may ask for."""

    def __init__(self, config: Config) -> None:
        default = Steering(config.weights.weights(), config.policy)
        self.models = tuple(dict.fromkeys(model.name for model in config.models))
        self.presets: Mapping[str, Weights] = config.preset_weights()
        self._targets = {AUTO: Target(AUTO, None, "default", default)}
        for preset, weights in self.presets.items():
            name = f"{AUTO}:{preset}"
            self._targets[name] = Target(name, None, preset, default._replace(weights=weights))
        for name in list(self._targets):
            self._targets[PREFIX + name] = self._targets[name]
        for model in self.models:
            self._targets[model] = Target(model, model, "none", default)

    def resolve(self, name: str) -> Target:
        """Return what a name means. Raises UnknownModel."""
        try:
            return self._targets[name]
        except KeyError:
            shown = name[:80]
            raise UnknownModel(
                f"the model {shown!r} does not exist here; GET /v1/models lists those that do"
            ) from None


Picks = dict[tuple[str, str], Backend]
"""The backend that each (model, deployment) would send the request to."""


def candidates(snapshot: Snapshot, model: str | None) -> tuple[list[Candidate], Picks]:
    """Return the candidates of one model, or of all, as they are at this moment.

    Each has the load of the backend that it would use, so what is predicted is what is sent there.
    """
    found: list[Candidate] = []
    picks: Picks = {}
    for option, deployment, *_ in snapshot.places:
        if model is None or option.model == model:
            backend = deployment.pick()
            if backend is None:
                found.append(Candidate(option, up=False))
            else:
                picks[option.name] = backend
                running, queued = backend.load
                found.append(Candidate(option, running, True, queued))
    return found, picks


def _place(model: ModelConfig, deployment: Deployment, profile: Profile) -> Place:
    fitted = profile.model(model.profile or model.name)
    decode = fitted.decode_joules()
    shared = -1 if decode.joules_per_step is None else _nanojoules(decode.joules_per_step)
    cost = DecodeCost(
        _nanojoules(decode.joules_per_token), _nanojoules(decode.joules_per_context_token), shared
    )
    return Place(_option(model, profile), deployment, fitted.prefill_joules()[1], cost)


def _nanojoules(joules: float) -> int:
    return min(round(joules * 1e9), _MOST_NANOJOULES)


def _option(model: ModelConfig, profile: Profile) -> Option:
    fitted = profile.model(model.profile or model.name)
    return Option(
        model=model.name,
        deployment=model.label,
        accuracy=fitted.accuracy.default,
        seconds=fitted.seconds.cost(Quantity.SECONDS),
        joules=fitted.joules.cost(Quantity.JOULES),
        context=model.context,
        capabilities=frozenset(model.capabilities),
        output=fitted.output_model(),
        ratio=fitted.tokens.ratio,
    )
