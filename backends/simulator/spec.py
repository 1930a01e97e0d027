"""What one simulated server is: its name, its costs and what it is able to do."""

from dataclasses import dataclass

from backends.simulator.cost_model import CostModel


@dataclass(frozen=True, slots=True)
class SimulatorSpec:
    """One simulated server."""

    model: str
    """The name it serves under."""
    truth: CostModel
    speed: float = 1.0
    """Simulated seconds per wall second."""
    seed: int = 0
    api_key: str | None = None
    """If set, requests under /v1 need it as a bearer token."""
    embeddings: bool = False
    tools: bool = True
    tool_chance: float = 1.0
    """How often tool_choice auto calls the first tool."""
    token_ratio: float = 1.0
    """Tokens of this model per token of the simulator's own tokeniser."""
    per_request_metrics: bool = False
    """vLLM's --enable-per-request-metrics."""
    prompt_tokens_details: bool = False
    """vLLM's --enable-prompt-tokens-details."""
    prefix_cache_tokens: int = 0
    """What its prefix cache holds; 0: there is none."""

    def __post_init__(self) -> None:
        if self.speed <= 0:
            raise ValueError(f"speed is {self.speed}, it must be positive")

    def count_tokens(self, pieces: int) -> int:
        """What so many pieces count for in this model."""
        return max(1, round(pieces * self.token_ratio))
