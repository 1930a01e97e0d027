"""What a simulated model really costs: the answer key that the gateway's predictions are held to.

PURE: plain numbers in, plain numbers out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp
from random import Random
from typing import Any, Literal, Self

Form = Literal["additive", "interaction", "load"]

_SIZES: dict[str, int] = {"additive": 3, "interaction": 4, "load": 5}
# Prefill and decode each keep at least this share of a request's total, so that a negative
# intercept (the published phi-3 T has b0 = -0.0249 s) cannot make a step run backwards.
_LEAST_SHARE = 0.02
# A form that comes out negative far from where it was fitted still has to take some time.
_LEAST_TOTAL = 1e-6
# Noise is symmetric; a draw below this factor would make work nearly free.
_LEAST_FACTOR = 0.05


@dataclass(frozen=True, slots=True)
class SimulatedCost:
    """One cost form and its coefficients b0, b1, … (seconds or joules)."""

    form: Form
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
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
        return self.form == "load"

    def scale_by(self, factor: float) -> "SimulatedCost":
        """The same form, everything `factor` times as costly."""
        return SimulatedCost(self.form, tuple(factor * b for b in self.coefficients))


@dataclass(frozen=True, slots=True)
class PhaseSplit:
    """One cost of one request alone, apart by phase; prefill + tokens_out * per_token = total."""

    prefill: float
    per_token: float


@dataclass(frozen=True, slots=True)
class CostModel:
    """How a simulated model spends time and energy, and how much it says."""

    seconds: SimulatedCost
    """T(i, o) in seconds for a request alone (i prompt tokens, o new tokens)."""
    joules: SimulatedCost
    """E(i, o) in joules for a request alone."""
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
        if output:
            costs["output"] = (float(output["slope"]), float(output["intercept"]))
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
        return _compute_unloaded_total(self.seconds, tokens_in, tokens_out, load=0.0)

    def total_joules(self, tokens_in: int, tokens_out: int) -> float:
        """E of a request that runs alone, in joules, without noise."""
        return _compute_unloaded_total(
            self.joules, tokens_in, tokens_out, load=self.joules.all_coefficients[4]
        )

    def split_seconds(self, tokens_in: int, tokens_out: int, factor: float = 1.0) -> PhaseSplit:
        """Prefill seconds and seconds per token of a request that runs alone."""
        total = factor * self.total_seconds(tokens_in, tokens_out)
        return _split_phases(self.seconds, total, tokens_in, tokens_out, factor)

    def split_joules(self, tokens_in: int, tokens_out: int, factor: float = 1.0) -> PhaseSplit:
        """Prefill joules and joules per token of a request that runs alone."""
        total = factor * self.total_joules(tokens_in, tokens_out)
        return _split_phases(self.joules, total, tokens_in, tokens_out, factor)

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
    total = b0 + b1 * tokens_in + (b2 + b3 * tokens_in + load) * tokens_out
    return max(total, _LEAST_TOTAL)


def _split_phases(
    cost: SimulatedCost, total: float, tokens_in: int, tokens_out: int, factor: float
) -> PhaseSplit:
    """Divide a total into phases: what the floor adds to one phase is taken out of the other."""
    b0, b1, *_ = cost.all_coefficients
    least = _LEAST_SHARE * total
    prefill = min(max(factor * (b0 + b1 * tokens_in), least), total - least)
    return PhaseSplit(prefill, (total - prefill) / tokens_out)
