"""Which deployments a requested name stands for, and what they look like to the scheduler.

A `RoutingSnapshot` joins the configured deployments with one profile; a new profile makes a new
one, and a request keeps the one it began with, so that no decision mixes two.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from backends.meter.ledger.decode_weights import DecodeCost
from backends.registry import Deployment
from gateway.config import GatewayConfig, ModelConfig
from gateway.profile import CostProfile
from gateway.scheduling.candidate import DeploymentOption
from gateway.scheduling.cost import CostQuantity
from gateway.scheduling.decision import MetricWeights, PredictionBounds
from gateway.service.client.errors import ModelNotAllowed, UnknownModel
from gateway.service.request.steering import RequestSteering

AUTO = "auto"
MODEL_PREFIX = "joulegate/"
OTHER = "other"
"""The `requested` label of every name that is not the config's."""
_MOST_NANOJOULES = 1 << 50


class RoutedDeployment(NamedTuple):
    """One deployment, its face to the scheduler, and what its meter shares energy by."""

    option: DeploymentOption
    deployment: Deployment
    prompt_joules: float
    """Per prompt token, as profiled."""
    decode_cost: DecodeCost

    def predict_prefill_joules(self, tokens_in: int) -> float:
        """Return what profiling says that a prompt takes beside others.

        Without the intercept: that is a step's fixed part, which company shares.
        """
        return self.prompt_joules * tokens_in


class RoutingSnapshot:
    """All places under one profile; immutable."""

    def __init__(
        self, config: GatewayConfig, deployments: Sequence[Deployment], profile: CostProfile
    ) -> None:
        """Join them. Raises ProfileError where the profile lacks a model."""
        self.profile = profile
        self.routed_deployments = tuple(
            _place(model, deployment, profile)
            for model, deployment in zip(config.models, deployments, strict=True)
        )
        self.by_name = {place.option.name: place for place in self.routed_deployments}
        self.reads_text = profile.prompt_accuracy is not None or any(
            place.option.words is not None for place in self.routed_deployments
        )


class RequestTarget(NamedTuple):
    """What a requested name means: all models, or one; with the weights it starts from.

    `allowed`: the models that may serve who asked, None for all.
    """

    label: str
    model: str | None
    preset: str
    steering: RequestSteering
    allowed: frozenset[str] | None = None


class ModelNames:
    """Every name a client may ask for; one that names none gets the config's `default_model`."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        bounds = PredictionBounds(quantile=config.bounds.quantile)
        default = RequestSteering(config.weights.to_metric_weights(), config.policy, bounds)
        self.models = tuple(dict.fromkeys(model.name for model in config.models))
        self.presets: Mapping[str, MetricWeights] = config.preset_weights()
        self._targets = {AUTO: RequestTarget(AUTO, None, "default", default)}
        for preset, weights in self.presets.items():
            name = f"{AUTO}:{preset}"
            self._targets[name] = RequestTarget(
                name,
                None,
                preset,
                default._replace(weights=weights, bounds=config.preset_bounds(preset)),
            )
        for name in list(self._targets):
            self._targets[MODEL_PREFIX + name] = self._targets[name]
        for model in self.models:
            self._targets[model] = RequestTarget(model, model, "none", default)
        self._targets[""] = self._targets[config.default_model]
        self._withheld: frozenset[str] = frozenset()

    def restrict_to(
        self,
        models: Collection[str] | None,
        presets: Collection[str] | None,
        weights: MetricWeights | None,
    ) -> "ModelNames":
        """Return those of one key: routed names of `presets`, and of `models` alone; None: all.

        `weights`, where given, are what it has in place of the config's.
        """
        default = self._targets[AUTO].steering
        allowed = None if models is None else frozenset(models)
        kept = {}
        for name, target in self._targets.items():
            if target.model is None:
                if presets is not None and target.label not in presets:
                    continue
            elif allowed is not None and target.model not in allowed:
                continue
            steering = target.steering
            if weights is not None and steering is default:
                steering = steering._replace(weights=weights)
            kept[name] = target._replace(steering=steering, allowed=allowed)
        restricted = copy.copy(self)
        restricted._targets = kept  # noqa: SLF001 - its own class
        restricted._withheld = frozenset(self._targets.keys() - kept.keys())  # noqa: SLF001
        restricted.models = tuple(model for model in self.models if model in kept)
        return restricted

    def offers_name(self, name: str) -> bool:
        """Tell whether a request may ask for a name."""
        return name in self._targets

    def resolve_name(self, name: str) -> RequestTarget:
        """Return what a name means. Raises UnknownModel, ModelNotAllowed."""
        try:
            return self._targets[name]
        except KeyError:
            shown = name[:80]
            if name in self._withheld:
                raise ModelNotAllowed(
                    f"this API key may not use {shown!r}; GET /v1/models lists what it may"
                    if name
                    else "this API key may not use the default model; name one of GET /v1/models"
                ) from None
            raise UnknownModel(
                f"the model {shown!r} does not exist here; GET /v1/models lists those that do"
            ) from None


def _place(model: ModelConfig, deployment: Deployment, profile: CostProfile) -> RoutedDeployment:
    fitted = profile.get_model(model.profile or model.name)
    decode = fitted.decode_joules()
    shared = -1 if decode.joules_per_step is None else _nanojoules(decode.joules_per_step)
    cost = DecodeCost(
        _nanojoules(decode.joules_per_token), _nanojoules(decode.joules_per_context_token), shared
    )
    return RoutedDeployment(
        _make_option(model, profile), deployment, fitted.get_prefill_coefficients()[1], cost
    )


def _nanojoules(joules: float) -> int:
    return min(round(joules * 1e9), _MOST_NANOJOULES)


def _make_option(model: ModelConfig, profile: CostProfile) -> DeploymentOption:
    fitted = profile.get_model(model.profile or model.name)
    words = profile.lengths.get(model.profile or model.name)
    return DeploymentOption(
        model=model.name,
        deployment=model.deployment_label,
        accuracy=fitted.accuracy.default,
        seconds=fitted.seconds.to_cost_function(CostQuantity.SECONDS),
        joules=fitted.joules.to_cost_function(CostQuantity.JOULES),
        context=model.context,
        capabilities=frozenset(model.capabilities),
        output=fitted.to_output_model(),
        ratio=fitted.tokens.ratio,
        per_dense_char=fitted.tokens.per_dense_char,
        words=None if words is None else words.model(),
        profile=model.profile or model.name,
    )
