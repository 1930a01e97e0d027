"""One request on its way through the engine, and what it has truly cost.

PURE: no clock, no I/O.
"""

from dataclasses import dataclass
from random import Random

from backends.simulator.cost_model import CostModel
from backends.simulator.step_model import StepPrice


@dataclass(frozen=True, slots=True)
class RequestCost:
    """What one request really cost, once it has ended."""

    request_id: str
    tokens_in: int
    tokens_out: int
    """New tokens it got (fewer than asked for when aborted)."""
    prefill_joules: float
    """Of the steps in which its prompt was computed."""
    decode_joules: float
    microjoules: int
    """The same energy as the counter saw it."""
    queue_seconds: float
    """From submission to the start of its prefill."""
    seconds: float
    """From submission to its last token."""
    first_token_seconds: float
    """From submission to its first token; 0 if there was none."""
    aborted: bool = False
    cached_tokens: int = 0
    """Of its prompt, found in the prefix cache."""
    preemptions: int = 0
    """How often a full cache threw it out."""

    @property
    def total_joules(self) -> float:
        """Prefill and decode together."""
        return self.prefill_joules + self.decode_joules


class EngineRequest:
    """A request while the engine has it."""

    __slots__ = (
        "admitted_at", "cached_tokens", "context", "decode_joules", "first_token_at", "joules",
        "left", "microjoules", "most_chunk", "preemptions", "prefill_joules", "prompt_done",
        "prompt_tokens", "request_id", "seconds", "submitted_at", "synced_shared", "synced_step",
        "tokens_in", "tokens_out",
    )  # fmt: skip

    joules: StepPrice
    seconds: StepPrice

    def __init__(
        self, request_id: str, tokens_in: int, tokens_out: int, cached_tokens: int, now: float
    ) -> None:
        self.request_id = request_id
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out
        self.cached_tokens = cached_tokens
        self.left = tokens_out
        self.prompt_tokens = tokens_in
        """To be computed before it decodes; more than `tokens_in` after it was thrown out."""
        self.prompt_done = cached_tokens
        self.context = 0
        """Tokens it has in the KV cache."""
        self.most_chunk = 0
        self.submitted_at = now
        self.admitted_at = -1.0
        self.first_token_at = 0.0
        self.prefill_joules = 0.0
        self.decode_joules = 0.0
        self.microjoules = 0
        self.preemptions = 0
        self.synced_step = 0
        """The step of its batch up to which its tokens and joules are counted here."""
        self.synced_shared = 0.0

    def price(self, truth: CostModel, rng: Random) -> None:
        """Fix what this request costs; a truth that is replaced later leaves it alone."""
        tokens = (self.tokens_in, self.tokens_out)
        time_factor, energy_factor = truth.draw_factor(rng), truth.draw_factor(rng)
        self.seconds = truth.price_seconds(*tokens, time_factor)
        self.joules = truth.price_joules(*tokens, energy_factor)
        self.most_chunk = truth.most_chunk_tokens(self.seconds)

    @property
    def spent_joules(self) -> float:
        """What it has spent so far."""
        return self.prefill_joules + self.decode_joules

    def throw_out(self) -> None:
        """Lose what is in the cache: prompt and tokens so far have to be computed anew."""
        self.prompt_tokens = self.tokens_in + self.tokens_out - self.left
        self.prompt_done = self.context = 0
        self.preemptions += 1

    def end(self, now: float, *, aborted: bool = False) -> RequestCost:
        """What became of it."""
        first = self.first_token_at - self.submitted_at if self.left < self.tokens_out else 0.0
        admitted_at = self.admitted_at if self.admitted_at >= 0.0 else now
        return RequestCost(
            request_id=self.request_id,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out - self.left,
            prefill_joules=self.prefill_joules,
            decode_joules=self.decode_joules,
            microjoules=self.microjoules,
            queue_seconds=admitted_at - self.submitted_at,
            seconds=now - self.submitted_at,
            first_token_seconds=first,
            aborted=aborted,
            cached_tokens=self.cached_tokens,
            preemptions=self.preemptions,
        )
