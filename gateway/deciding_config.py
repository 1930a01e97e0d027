"""How the config decides: weights, placement, bounds, learning. Part of `gateway.config`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.scheduling.decision import DEFAULT_QUANTILE, MetricWeights
from gateway.scheduling.exploration import ExplorationMethod, ExplorationRules
from gateway.scheduling.placement import PlacementMode, PlacementRules

Weight = Annotated[float, Meta(ge=0.0)]


class WeightsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of the three metrics; a missing one counts 0, and they are scaled to sum 1."""

    accuracy: Weight = 0.0
    energy: Weight = 0.0
    time: Weight = 0.0

    def __post_init__(self) -> None:
        self.to_metric_weights()

    def to_metric_weights(self) -> MetricWeights:
        """Return them normalised. Raises ValueError where all are 0."""
        return MetricWeights.from_values(self.accuracy, self.energy, self.time)


class PresetConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A named set of weights, asked for as `auto:NAME`.

    `min_accuracy` is the least chance of being right, `accuracy_within` how far below the best
    candidate's it may lie; a client's own bound replaces either.
    """

    weights: WeightsConfig
    min_accuracy: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    accuracy_within: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class PlacementConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which of a deployment's backends a request goes to, where its costs depend on load.

    `weights`: the request's own weights choose between the fullest backend that keeps its time per
    token within `max_slowdown` of a request alone, and the emptiest; `pack` and `spread` take the
    one or the other. A backend with more than `max_prompt_tokens` yet to be read takes no further
    prompt. With `affinity` the weights may also choose the backend whose prefix cache holds the
    beginning of the conversation, where backends report `cached_tokens`.
    """

    mode: Literal["weights", "pack", "spread"] = "weights"
    max_slowdown: Annotated[float, Meta(ge=1.0, le=100.0)] = 1.2
    min_backends: Annotated[int, Meta(ge=1)] = 1
    max_prompt_tokens: Annotated[int, Meta(ge=1)] = 16_384
    affinity: bool = True

    def rules(self) -> PlacementRules:
        """Return them as the scheduler takes them."""
        return PlacementRules(
            PlacementMode(self.mode),
            self.max_slowdown,
            self.min_backends,
            self.max_prompt_tokens,
            affinity=self.affinity,
        )


class BoundsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How hard bounds are held: by the costs that this share of such requests keep within."""

    quantile: Annotated[float, Meta(ge=0.5, le=0.99)] = DEFAULT_QUANTILE


class EnergyBudgetConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Joules an hour that this gateway is to hold its requests to, by a price on joules."""

    joules_per_hour: Annotated[float, Meta(gt=0.0, le=1e15)]


class AccuracyLearningConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Accuracy learnt from `POST /v1/feedback`, and what exploring for it may cost.

    In any hour the right answers that are expected to be lost, and the joules that are expected to
    be added, against always taking whoever looks best, stay within the two budgets. `seed` decides
    the draws. What is known fades by half in `half_life_days`. `width` is what deviations are
    multiplied by; `even_share` is drawn evenly among all candidates, and each that may be the best
    has `likely_share` at least, up to 0.15 where little is known of it.
    """

    method: Literal["thompson", "linucb"]
    answers_per_hour: Annotated[float, Meta(ge=0.0, le=1e9)] = 1.0
    joules_per_hour: Annotated[float, Meta(ge=0.0, le=1e15)] = 10_000.0
    seed: int = 0
    half_life_days: Annotated[float, Meta(gt=0.0, le=3650.0)] = 60.0
    width: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.7
    even_share: Annotated[float, Meta(ge=0.0, le=0.5)] = 0.01
    likely_share: Annotated[float, Meta(ge=0.0, le=0.1)] = 0.03

    def to_rules(self, workers: int = 1) -> ExplorationRules:
        """Return them for one of so many workers, which share the budgets evenly."""
        return ExplorationRules(
            ExplorationMethod(self.method),
            self.answers_per_hour / workers,
            self.joules_per_hour / workers,
            self.seed,
            self.even_share,
            self.width,
            self.likely_share,
        )


class LearningConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What is learnt of answer lengths and tokenisers while serving, and of `accuracy` where given.

    `state` is a small file that keeps it over a restart; each further worker process adds its
    number to the name.
    """

    enabled: bool = True
    state: str | None = None
    accuracy: AccuracyLearningConfig | None = None

    def __post_init__(self) -> None:
        if self.accuracy is not None and not self.enabled:
            raise ValueError("accuracy: is learnt only while `enabled` is true")
