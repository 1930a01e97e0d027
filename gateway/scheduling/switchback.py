"""A switchback: blocks of wall-clock time, each given to one arm by lot.

Rules:
- A block is a multiple of its length in UTC, so that all gateways agree on it to within their
  clocks. Arms are drawn for each pair of neighbouring blocks, one of each, so that a drift of the
  traffic over hours falls on both alike (Bojinov, Simchi-Levi and Zhao, "Design and Analysis of
  Switchback Experiments", 2023, on why neighbours must not be compared without a gap).
- The lot of a pair depends on the experiment's name, its seed and the pair's number alone.
- What arrives in the first seconds of a block, its washout, counts for nobody: the requests of the
  block before still run.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

BASELINE: Final = "baseline"
TREATMENT: Final = "treatment"
ARMS: Final = (BASELINE, TREATMENT)


@dataclass(frozen=True, slots=True)
class Switchback:
    """An experiment; times are Unix seconds. Raises ValueError where the washout fills a block."""

    name: str
    seed: int = 0
    block_seconds: float = 1200.0
    washout_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.washout_seconds < self.block_seconds:
            raise ValueError("the washout must be shorter than a block")

    def block_at(self, at: float) -> int:
        """Return the number of the block that a moment is in."""
        return int(at // self.block_seconds)

    def arm_of(self, block: int) -> str:
        """Return the arm that a block was given to."""
        lot = hashlib.sha256(f"{self.name}\n{self.seed}\n{block // 2}".encode()).digest()[0] & 1
        return ARMS[(block & 1) ^ lot]

    def arm_in_force(self, at: float) -> str:
        """Return the arm of the block that a moment is in, its washout included."""
        return self.arm_of(self.block_at(at))

    def arm_at(self, at: float) -> str | None:
        """Return the arm that a moment counts for, None within a washout."""
        if at % self.block_seconds < self.washout_seconds:
            return None
        return self.arm_in_force(at)
