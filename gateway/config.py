"""gateway.yaml -> frozen structs; every error says where in the file it is.

The structs are the one place where a key is defined: the reference page and the JSON Schema
(`joulegate check --schema`) are generated from them.
"""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from gateway import structured
from gateway.boundary_config import BoundaryConfig
from gateway.carbon_config import CarbonConfig, load_carbon
from gateway.deciding_config import (
    BoundsConfig,
    EnergyBudgetConfig,
    LearningConfig,
    PlacementConfig,
    PresetConfig,
    WeightsConfig,
)
from gateway.experiment_config import ExperimentConfig
from gateway.headers_config import HeadersConfig
from gateway.keys_config import KeysConfig, load_keys_config
from gateway.log_config import LogConfig, load_log
from gateway.models_config import BackendConfig, ModelConfig, check_same_server, load_model
from gateway.profile import SHIPPED
from gateway.scheduling.decide import DEFAULT_POLICY, POLICIES
from gateway.scheduling.decision import (
    NO_BOUNDS,
    PRESET_BOUNDS,
    PRESETS,
    MetricWeights,
    PredictionBounds,
)
from gateway.structured import ConfigError, check_secret_or_file
from gateway.surfaces_config import (
    AdminConfig,
    ServingTlsConfig,
    check_networks,
    load_admin,
    load_serving_tls,
)
from gateway.tls_config import TlsConfig, load_tls
from gateway.tracing_config import TracingConfig, resolve_tracing

__all__ = [
    "BackendConfig",
    "CarbonConfig",
    "ConfigError",
    "GatewayConfig",
    "LogConfig",
    "ModelConfig",
    "PresetConfig",
    "TracingConfig",
    "WeightsConfig",
    "build_json_schema",
    "load_config",
    "parse_config",
]

Policy = Annotated[str, Meta(extra_json_schema={"enum": list(POLICIES)})]
Seconds = Annotated[float, Meta(gt=0.0, le=604_800.0)]


class TimeoutsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Deadlines, in seconds."""

    connect_seconds: Seconds = 2.0
    first_token_seconds: Seconds = 120.0
    unary_seconds: Seconds = 600.0
    stall_seconds: Seconds = 60.0
    stream_seconds: Seconds = 3600.0
    body_seconds: Seconds = 30.0
    drain_seconds: Seconds = 30.0
    keep_alive_seconds: Seconds = 75.0


class HealthConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a backend is ejected, for how long, and how often it is probed.

    Every `load_seconds` vLLM's gauges are read, to see the load that others put on it.
    """

    probe_seconds: Seconds = 1.0
    idle_probe_seconds: Seconds = 5.0
    probe_timeout_seconds: Seconds = 5.0
    load_seconds: Seconds = 2.0
    eject_after_failures: Annotated[int, Meta(ge=1)] = 5
    eject_seconds: Seconds = 30.0
    eject_max_seconds: Seconds = 300.0


class RetryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of the traffic may be attempts beyond a request's first.

    Each such attempt takes a token. A request earns `budget_ratio` of one, at most `budget_max` are
    kept, and the first `budget_start` are there from the start, as an advance on what will be
    earned. Connections that were refused cost none.
    """

    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 4
    budget_ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.2
    budget_start: Annotated[float, Meta(ge=0.0)] = 3.0
    budget_max: Annotated[float, Meta(ge=0.0)] = 10.0


class LimitsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What bounds what one client or backend can make the gateway hold, or do.

    Beyond `max_running` requests at once up to `max_queued` wait for up to `max_queue_seconds`; a
    model's own `max_running` likewise. `max_answers` caps `n` and `best_of`, `max_output_tokens`
    the tokens of an answer, also where none are asked for.
    """

    max_body_bytes: Annotated[int, Meta(ge=1024)] = 32 * 1024 * 1024
    max_answer_bytes: Annotated[int, Meta(ge=1024)] = 64 * 1024 * 1024
    max_bytes_in_flight: Annotated[int, Meta(ge=1024)] = 1024 * 1024 * 1024
    requests_kept: Annotated[int, Meta(ge=0)] = 1000
    max_running: Annotated[int, Meta(ge=1)] | None = None
    max_queued: Annotated[int, Meta(ge=0)] = 1000
    max_queue_seconds: Seconds = 30.0
    max_answers: Annotated[int, Meta(ge=1)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None


class GatewayConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; `tls` is for backends and meters, `meter_tls` replaces it for meters.

    `meter_secret_file` names a file that holds the secret. `response_id_secret` (default:
    `meter_secret`) keys the ids of responses: all gateways before the same backends need one.
    `default_model` is what a request gets that names no model: `auto`, a preset or a model's name;
    only a model's name serves endpoints that are not routed. `learnt_profile`, a file that may come
    and go, has the models that recalibration wrote; they replace the profile's. Backends, meters
    and Prometheus are asked at addresses of `upstream_networks` only (CIDR); without it at any but
    link-local ones and those at which clouds keep a machine's credentials.
    """

    models: Annotated[tuple[ModelConfig, ...], Meta(min_length=1)]
    profile: str | None = None
    learnt_profile: str | None = None
    shadow: str | None = None
    policy: Policy = DEFAULT_POLICY
    placement: PlacementConfig = PlacementConfig()
    energy_budget: EnergyBudgetConfig | None = None
    reference_load: Annotated[float, Meta(ge=0.0, le=100_000.0)] | Literal["auto"] = "auto"
    bounds: BoundsConfig = BoundsConfig()
    learning: LearningConfig = LearningConfig()
    weights: WeightsConfig = WeightsConfig(accuracy=0.5, energy=0.3, time=0.2)
    default_model: str = "auto"
    presets: dict[str, PresetConfig] = {}
    timeouts: TimeoutsConfig = TimeoutsConfig()
    health: HealthConfig = HealthConfig()
    retry: RetryConfig = RetryConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    meter_secret: str | None = None
    meter_secret_file: str | None = None
    response_id_secret: str | None = None
    tls: TlsConfig | None = None
    meter_tls: TlsConfig | None = None
    carbon: CarbonConfig = CarbonConfig()
    boundary: BoundaryConfig = BoundaryConfig()
    tracing: TracingConfig = TracingConfig()
    experiment: ExperimentConfig | None = None
    admin: AdminConfig | None = None
    serving_tls: ServingTlsConfig | None = None
    upstream_networks: tuple[str, ...] | None = None
    cors_origins: tuple[str, ...] = ("*",)
    headers: HeadersConfig = HeadersConfig()
    keys: KeysConfig | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            close = difflib.get_close_matches(self.policy, POLICIES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(POLICIES)}"
            raise ValueError(f"policy: {self.policy!r} is not a policy ({hint})")
        check_networks("upstream_networks", self.upstream_networks or ())
        check_secret_or_file("meter_secret", self.meter_secret, self.meter_secret_file)
        check_secret_or_file("response_id_secret", self.response_id_secret, None)
        seen: set[tuple[str, str]] = set()
        urls: dict[str, BackendConfig] = {}
        places: set[tuple[str, str]] = set()
        for index, model in enumerate(self.models):
            key = (model.name, model.deployment_label)
            if key in seen:
                raise ValueError(
                    f"models[{index}]: {model.name!r} is listed twice; give each a `deployment` "
                    "of its own"
                )
            seen.add(key)
            for place, backend in enumerate(model.backends):
                where = f"models[{index}].backends[{place}]"
                if (model.name, backend.root_url) in places:
                    raise ValueError(f"{where}.url: {backend.root_url} is listed twice")
                places.add((model.name, backend.root_url))
                check_same_server(where, backend, urls.setdefault(backend.root_url, backend))
        if self.experiment is not None:
            self._check_baseline(self.experiment)
        self._check_default_model()
        for name in self.presets:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
                raise ValueError(f"presets.{name}: lower-case letters, digits, _ and - only")

    def _check_default_model(self) -> None:
        known = ["auto", *(f"auto:{name}" for name in self.preset_weights())]
        known += dict.fromkeys(model.name for model in self.models)
        if self.default_model not in known:
            raise ValueError(f"default_model: {self.default_model!r}: none of {', '.join(known)}")

    def _check_baseline(self, experiment: ExperimentConfig) -> None:
        baseline = experiment.baseline
        if baseline.policy is not None and baseline.policy not in POLICIES:
            known = ", ".join(POLICIES)
            raise ValueError(f"experiment.baseline.policy: {baseline.policy!r}: none of {known}")
        names = sorted({model.name for model in self.models})
        if baseline.model is not None and baseline.model not in names:
            have = ", ".join(names)
            raise ValueError(f"experiment.baseline.model: {baseline.model!r}: none of {have}")

    @property
    def profile_file(self) -> Path | None:
        """Where the profile that decides is; None for the shipped one."""
        return Path(self.profile) if self.profile else None

    @property
    def learnt_file(self) -> Path | None:
        """Where models are that replace the profile's, once something has learnt them."""
        return Path(self.learnt_profile) if self.learnt_profile else None

    @property
    def shadow_file(self) -> Path | None:
        """Where the one in shadow is, if `shadow` names one; None for the shipped one."""
        return None if self.shadow in {None, SHIPPED} else Path(str(self.shadow))

    def preset_weights(self) -> dict[str, MetricWeights]:
        """Return every preset's weights by name, the built-in ones included."""
        mine = {name: preset.weights.to_metric_weights() for name, preset in self.presets.items()}
        return {**PRESETS, **mine}

    def preset_bounds(self, name: str) -> PredictionBounds:
        """Return a preset's bounds, the quantile of the config's."""
        preset = self.presets.get(name)
        bounds = PRESET_BOUNDS.get(name, NO_BOUNDS)
        if preset is not None:
            bounds = PredictionBounds(
                min_accuracy=preset.min_accuracy, accuracy_within=preset.accuracy_within
            )
        return replace(bounds, quantile=self.bounds.quantile)


def load_config(path: Path) -> GatewayConfig:
    """Read a configuration file. Raises ConfigError; relative paths in it start at its folder."""
    config = parse_config(structured.read_config_text(path), str(path))
    return msgspec.structs.replace(
        config,
        models=tuple(load_model(model, path.parent) for model in config.models),
        meter_secret=structured.read_secret(
            config.meter_secret, config.meter_secret_file, path.parent, "meter_secret"
        ),
        meter_secret_file=None,
        tls=load_tls(config.tls, path.parent, "tls"),
        meter_tls=load_tls(config.meter_tls, path.parent, "meter_tls"),
        profile=config.profile and str(path.parent / config.profile),
        learnt_profile=config.learnt_profile and str(path.parent / config.learnt_profile),
        shadow=(config.shadow_file and str(path.parent / config.shadow_file)) or config.shadow,
        learning=msgspec.structs.replace(
            config.learning,
            state=config.learning.state and str(path.parent / config.learning.state),
        ),
        log=load_log(config.log, path.parent),
        admin=load_admin(config.admin, path.parent),
        serving_tls=load_serving_tls(config.serving_tls, path.parent),
        carbon=load_carbon(config.carbon, path.parent),
        tracing=resolve_tracing(config.tracing),
        keys=load_keys_config(config.keys, path.parent),
    )


def parse_config(text: str, origin: str, environ: Mapping[str, str] = os.environ) -> GatewayConfig:
    """Validate a configuration's text; `origin` names it in errors. Raises ConfigError."""
    return structured.parse_struct(
        text, origin, GatewayConfig, environ, named={"presets": PresetConfig}
    )


def build_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file."""
    return structured.build_json_schema(GatewayConfig)
