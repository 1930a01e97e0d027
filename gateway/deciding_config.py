"""The config's keys for deciding: placement, bounds, what is learnt. Part of `gateway.config`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.scheduling.decision import DEFAULT_QUANTILE
from gateway.scheduling.placement import PlacementMode, PlacementRules


class PlacementConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which of a deployment's backends a request goes to, where its costs depend on load.

    `weights`: the request's own weights choose between the fullest backend that keeps its time per
    token within `max_slowdown` of a request alone, and the emptiest; `pack` and `spread` take the
    one or the other. A backend with more than `max_prompt_tokens` yet to be read takes no further
    prompt.
    """

    mode: Literal["weights", "pack", "spread"] = "weights"
    max_slowdown: Annotated[float, Meta(ge=1.0, le=100.0)] = 1.2
    min_backends: Annotated[int, Meta(ge=1)] = 1
    max_prompt_tokens: Annotated[int, Meta(ge=1)] = 16_384

    def rules(self) -> PlacementRules:
        """Return them as the scheduler takes them."""
        return PlacementRules(
            PlacementMode(self.mode), self.max_slowdown, self.min_backends, self.max_prompt_tokens
        )


class BoundsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How hard bounds are held: by the costs that this share of such requests keep within."""

    quantile: Annotated[float, Meta(ge=0.5, le=0.99)] = DEFAULT_QUANTILE


class EnergyBudgetConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Joules an hour that this gateway is to hold its requests to, by a price on joules."""

    joules_per_hour: Annotated[float, Meta(gt=0.0, le=1e15)]


class LearningConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What is learnt of answer lengths and tokenisers while serving.

    `state` is a small file that keeps it over a restart; each further worker process adds its
    number to the name.
    """

    enabled: bool = True
    state: str | None = None
