"""The config's `experiment`: which arm is the baseline, and how time is cut into blocks."""

import re
from typing import Annotated

from msgspec import Meta, Struct

from gateway.scheduling.switchback import Switchback


class BaselineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What routed requests get in the baseline's blocks: another policy, or one model.

    A request that the model cannot serve is decided as usual, and counts in the baseline.
    """

    policy: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        if (self.policy is None) == (self.model is None):
            raise ValueError("give one of policy, model")


class ExperimentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A switchback: blocks of UTC time, each given to baseline or treatment by lot.

    The treatment is the configuration as it stands. What arrives in the first `washout_seconds` of
    a block counts for nobody.
    """

    name: str
    baseline: BaselineConfig
    block_minutes: Annotated[float, Meta(gt=0.0, le=1440.0)] = 20.0
    washout_seconds: Annotated[float, Meta(ge=0.0)] = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise ValueError("name: letters, digits and . _ - only, and at most 64 of them")
        self.make_switchback()

    def make_switchback(self) -> Switchback:
        """Return the pure assignment. Raises ValueError where the washout fills a block."""
        return Switchback(self.name, self.seed, self.block_minutes * 60.0, self.washout_seconds)
