"""What a simulated model really costs: the answer key that the gateway's predictions are held to.

PURE: plain numbers in, plain numbers out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp
from random import Random
from typing import Any, Literal, Self

from backends.simulator.step_model import StepCost, StepPrice

Form = Literal["additive", "interaction", "context", "load", "load-context"]

_SIZES: dict[str, int] = {
    "additive": 3,
    "interaction": 4,
    "context": 4,
    "load": 5,
    "load-context": 5,
}
# Prefill and decode each keep at least this share of a request's total, so that a negative
# intercept (the published phi-3 T has b0 = -0.0249 s) cannot make a step run backwards.
_LEAST_SHARE = 0.02
# Without one the prompt's share is the form's own, however small: two percent of what a request
# takes alone is half of what it takes in a batch of 64.
_TINY_SHARE = 1e-6
# A form that comes out negative far from where it was fitted still has to take some time.
_LEAST_TOTAL = 1e-6
# Noise is symmetric; a draw below this factor would make work nearly free.
_LEAST_FACTOR = 0.05
_USUAL_SIGMA = 0.8  # what a profile leaves out
MAX_CHUNK_SECONDS = 0.25
"""What a profile's prompt may take of one step, so that no stream stands still for long."""


@dataclass(frozen=True, slots=True)
class SimulatedCost:
    """One cost form and its coefficients b0, b1, … (seconds or joules)."""

    form: Form
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.form not in _SIZES:
            known = ", ".join(_SIZES)
            raise ValueError(f"no cost form {self.form!r} (known here: {known})")
        if len(self.coefficients) != _SIZES[self.form]:
            raise ValueError(
                f"the {self.form} form has {_SIZES[self.form]} coefficients, "
                f"not {len(self.coefficients)}"
            )

    @property
    def all_coefficients(self) -> tuple[float, float, float, float, float]:
        """All five coefficients, 0 for those that the form lacks."""
        b0, b1, b2, b3, b4 = (*self.coefficients, 0.0, 0.0)[:5]
        return b0, b1, b2, b3, b4

    @property
    def has_load(self) -> bool:
        """Whether the form says itself how cost depends on the other running requests."""
        return self.form in {"load", "load-context"}

    @property
    def reads_context(self) -> bool:
        """Whether b3 is per token of context read, o(i+o/2), rather than per i·o."""
        return self.form in {"context", "load-context"}

    def scale_by(self, factor: float) -> "SimulatedCost":
        """The same form, everything `factor` times as costly."""
        return SimulatedCost(self.form, tuple(factor * b for b in self.coefficients))


@dataclass(frozen=True, slots=True)
class CostModel:
    """How a simulated model spends time and energy, and how much it says."""

    seconds: SimulatedCost | StepCost
    """T(i, o) in seconds for a request alone (i prompt tokens, o new tokens), or a step's parts."""
    joules: SimulatedCost | StepCost
    """E(i, o) in joules for a request alone, or a step's parts."""
    shared_fraction: float = 0.85
    """Share of b2 (joules per token) that a batch pays once, for a joules form without b4."""
    slowdown_per_running: float = 0.02
    """Relative growth of a step per other running request, for a seconds form without b4."""
    idle_watts: float = 60.0
    noise: float = 0.0
    """Relative sd of one multiplicative draw per request, for seconds and for joules apart."""
    output: tuple[float, float] = (1.028, 44.12)
    """(slope, intercept): mean new tokens of an answer = slope * prompt tokens + intercept."""
    output_sd: float = 0.35
    """Spread of that number (sd of its logarithm); 0 gives exactly the mean."""
    max_num_seqs: int = 256
    """Requests that run at once; the others wait."""
    context: int = 4096
    """Tokens that prompt and answer may have together."""
    kv_tokens: int = 0
    """Tokens that the KV cache holds; 0 means 32 full contexts."""
    max_batched_tokens: int = 2048
    """Tokens computed in one step, vLLM's usual budget; longer prompts come in chunks."""
    preempts: bool = False
    """Admit whatever fits now; a full cache throws the youngest out, who computes all anew."""
    draft_tokens: int = 0
    """Speculative decoding: drafted tokens that each step verifies beside its own."""
    acceptance: float = 0.7
    """Chance that a drafted token is right, each after those before it."""

    @classmethod
    def from_profile(cls, model: Mapping[str, Any], **fields: Any) -> Self:
        """The truth of one entry under `models` of a profile file.

        Further fields override; raises KeyError or ValueError for an entry without costs.
        """
        costs: dict[str, Any] = {
            name: SimulatedCost(model[name]["form"], tuple(map(float, model[name]["coefficients"])))
            for name in ("seconds", "joules")
        }
        output = model.get("output")
        if output and output.get("mu") is not None:
            mu, sigma = float(output["mu"]), float(output.get("sigma", _USUAL_SIGMA))
            costs["output"], costs["output_sd"] = (0.0, exp(mu + sigma * sigma / 2.0)), sigma
        elif output:
            costs["output"] = (
                float(output.get("slope", 0.0)),
                float(output.get("intercept", 0.0)),
            )
        if model.get("idle_watts") is not None:
            costs["idle_watts"] = float(model["idle_watts"])
        return cls(**{**costs, **fields})

    def scale_costs(self, *, seconds: float = 1.0, joules: float = 1.0) -> "CostModel":
        """The same model, `seconds` times as slow and `joules` times as hungry."""
        return replace(
            self, seconds=self.seconds.scale_by(seconds), joules=self.joules.scale_by(joules)
        )

    @property
    def kv_capacity(self) -> int:
        """Tokens that fit the KV cache."""
        return self.kv_tokens or 32 * self.context

    def total_seconds(self, tokens_in: int, tokens_out: int) -> float:
        """T of a request that runs alone, in seconds, without noise."""
        return self._total(self.seconds, tokens_in, tokens_out, joules=False)

    def total_joules(self, tokens_in: int, tokens_out: int) -> float:
        """E of a request that runs alone, in joules, without noise."""
        return self._total(self.joules, tokens_in, tokens_out, joules=True)

    def price_seconds(self, tokens_in: int, tokens_out: int, factor: float = 1.0) -> StepPrice:
        """What a request adds to its steps, in seconds."""
        cost = self.seconds
        if isinstance(cost, StepCost):
            return cost.price(factor)
        total = factor * self.total_seconds(tokens_in, tokens_out)
        price, per_token = _phases(cost, total, tokens_in, tokens_out, factor)
        if cost.has_load:
            own = min(max(0.0, factor * cost.all_coefficients[4]), per_token)
        else:
            own = min(self.slowdown_per_running, 1.0) * per_token
        price.fixed, price.per_sequence = per_token - own, own
        price.parallel = not cost.has_load
        return price

    def price_joules(self, tokens_in: int, tokens_out: int, factor: float = 1.0) -> StepPrice:
        """What a request adds to its steps, in joules."""
        cost = self.joules
        if isinstance(cost, StepCost):
            return cost.price(factor)
        total = factor * self.total_joules(tokens_in, tokens_out)
        price, per_token = _phases(cost, total, tokens_in, tokens_out, factor)
        shared = (
            cost.all_coefficients[4]
            if cost.has_load
            else self.shared_fraction * cost.all_coefficients[2]
        )
        price.fixed = min(max(0.0, factor * shared), per_token)
        price.per_sequence = per_token - price.fixed
        return price

    def most_chunk_tokens(self, seconds: StepPrice) -> int:
        """Prompt tokens that one request may have computed in one step."""
        if isinstance(self.seconds, StepCost) or seconds.per_prompt_token <= 0.0:
            return self.max_batched_tokens
        most = int(MAX_CHUNK_SECONDS / seconds.per_prompt_token)
        return max(1, min(most, self.max_batched_tokens))

    def _total(
        self, cost: SimulatedCost | StepCost, tokens_in: int, tokens_out: int, *, joules: bool
    ) -> float:
        if isinstance(cost, StepCost):
            return cost.total_alone(tokens_in, tokens_out, self.max_batched_tokens)
        return _compute_unloaded_total(
            cost, tokens_in, tokens_out, load=cost.all_coefficients[4] if joules else 0.0
        )

    def draw_factor(self, rng: Random) -> float:
        """One multiplicative noise draw."""
        if not self.noise:
            return 1.0
        return max(_LEAST_FACTOR, 1.0 + self.noise * rng.gauss(0.0, 1.0))

    def draw_tokens_out(self, tokens_in: int, rng: Random) -> int:
        """How many tokens an answer has if nothing limits it; log-normal with the model's mean."""
        slope, intercept = self.output
        mean = slope * tokens_in + intercept
        if self.output_sd:
            mean *= exp(self.output_sd * rng.gauss(0.0, 1.0) - 0.5 * self.output_sd**2)
        return max(1, round(mean))


def _compute_unloaded_total(
    cost: SimulatedCost, tokens_in: int, tokens_out: int, *, load: float
) -> float:
    """The form with no other request running, floored at a tiny positive value."""
    b0, b1, b2, b3, _ = cost.all_coefficients
    context = tokens_in + (tokens_out / 2.0 if cost.reads_context else 0.0)
    total = b0 + b1 * tokens_in + (b2 + b3 * context + load) * tokens_out
    return max(total, _LEAST_TOTAL)


def _phases(
    cost: SimulatedCost, total: float, tokens_in: int, tokens_out: int, factor: float
) -> tuple[StepPrice, float]:
    """Divide a total into phases: the prompt's prices, and what each token takes alone.

    What the floor adds to one phase is taken out of the other.
    """
    b0, b1, *_ = cost.all_coefficients
    least = _LEAST_SHARE * total
    least_prefill = least if b0 < 0.0 else _TINY_SHARE * total
    prefill = min(max(factor * (b0 + b1 * tokens_in), least_prefill), total - least)
    own = min(max(0.0, factor * b1 * tokens_in), prefill)
    price = StepPrice(
        begin=prefill - own,
        fixed=0.0,
        chunk_fixed=0.0,
        per_sequence=0.0,
        per_prompt_token=own / tokens_in,
        per_context_token=0.0,
        per_chunk_context_token=0.0,
        parallel=False,
    )
    return price, (total - prefill) / tokens_out
