"""What one forward pass costs: joules or seconds, by what is in it.

PURE: plain numbers in, plain numbers out.

A step costs a fixed part (the weights are read once, whatever the batch), a part per sequence that
gets a token, a part per prompt token computed in it (chunked prefill) and a part per token of
context that attention reads. A request carries its own parts and an equal share of the fixed part
of each step it is in: the Shapley value of that game.
"""

from dataclasses import dataclass
from math import ceil, isfinite


@dataclass(frozen=True, slots=True)
class StepCost:
    """Measured parts of a step, all in joules or all in seconds. Raises ValueError below 0."""

    fixed: float
    per_sequence: float
    per_prompt_token: float
    per_context_token: float = 0.0
    """For each token that a sequence in the step has in its KV cache."""

    def __post_init__(self) -> None:
        parts = (self.fixed, self.per_sequence, self.per_prompt_token, self.per_context_token)
        if not all(isfinite(part) and part >= 0.0 for part in parts):
            raise ValueError(f"the parts of a step are finite and not negative, not {parts}")
        if self.fixed + self.per_sequence <= 0.0:
            raise ValueError("a step costs something")

    def scale_by(self, factor: float) -> "StepCost":
        """The same parts, everything `factor` times as costly."""
        return StepCost(
            factor * self.fixed,
            factor * self.per_sequence,
            factor * self.per_prompt_token,
            factor * self.per_context_token,
        )

    def total_alone(self, tokens_in: int, tokens_out: int, most_prompt_tokens: int) -> float:
        """The cost of a request that runs alone, its prompt in chunks of so many tokens at most.

        The last chunk yields the first token, so o tokens take o steps and the chunks before.
        """
        chunks = ceil(tokens_in / most_prompt_tokens)
        read_by_chunks = most_prompt_tokens * (chunks - 1) * (chunks - 2) // 2
        read = read_by_chunks + tokens_out * (tokens_in + tokens_out / 2)
        return (
            self.fixed * (chunks - 1 + tokens_out)
            + self.per_sequence * tokens_out
            + self.per_prompt_token * tokens_in
            + self.per_context_token * read
        )

    def price(self, factor: float) -> "StepPrice":
        """What one request brings to its steps, `factor` times the parts."""
        return StepPrice(
            begin=0.0,
            fixed=factor * self.fixed,
            chunk_fixed=factor * self.fixed,
            per_sequence=factor * self.per_sequence,
            per_prompt_token=factor * self.per_prompt_token,
            per_context_token=factor * self.per_context_token,
            per_chunk_context_token=factor * self.per_context_token,
            parallel=False,
        )


@dataclass(slots=True)
class StepPrice:
    """What one request brings to the steps it is in, in joules or in seconds; fixed when admitted.

    `begin`, `fixed` and `chunk_fixed` are paid once a step, whoever is in it.
    """

    begin: float
    """Further fixed part of a step in which a prompt begins (a profile's intercept)."""
    fixed: float
    """Fixed part of a step that yields a token."""
    chunk_fixed: float
    """Fixed part of a step that yields none (0 where a profile's b1 holds it already)."""
    per_sequence: float
    per_prompt_token: float
    per_context_token: float
    per_chunk_context_token: float
    parallel: bool
    """Prompts of a step take as long as the slowest: forms that know nothing of company."""
