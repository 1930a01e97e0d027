"""Predicted seconds and joules of one request: linear forms over token counts.

With i tokens in (c of them cached), o tokens out and r other requests running there:

    additive      b0 + b1 (i-c) + b2 o
    interaction   b0 + b1 (i-c) + b2 o + b3 i o
    context       b0 + b1 (i-c) + b2 o + b3 o(i+o/2)
    load          interaction + b4 o r        for seconds
                  interaction + b4 o/(1+r)    for joules
    load-context  context with the same load term

The first two are the published forms (Wilkins et al., "Offline Energy-Optimal LLM Serving",
2024). Attention at the k-th new token reads i+k tokens, o(i+o/2) in all: that is `context`. The
load term says that a batch shares the energy of a decode step and lengthens it. r is the load now
where a request is to be predicted, its mean over the request's time where one was measured.
"""

from dataclasses import dataclass, field
from enum import StrEnum

_TYPICAL = (100.0, 100.0)

COST_FLOOR = 1e-3
"""Smallest prediction, in seconds or joules: a regression may cross zero, a cost may not."""

LARGEST_COEFFICIENT = 1e12
"""Largest coefficient taken, in size: far above any real cost, far below overflow."""


class RegressionForm(StrEnum):
    """Which terms a cost has; simpler ones first."""

    ADDITIVE = "additive"
    INTERACTION = "interaction"
    CONTEXT = "context"
    LOAD = "load"
    LOAD_CONTEXT = "load-context"

    @property
    def term_count(self) -> int:
        """Number of coefficients, b0 included."""
        return _TERMS[self]

    @property
    def knows_load(self) -> bool:
        """Whether the last coefficient is the load's."""
        return self in {RegressionForm.LOAD, RegressionForm.LOAD_CONTEXT}

    @property
    def reads_context(self) -> bool:
        """Whether b3 is per token of context read, o(i+o/2), rather than per i·o."""
        return self in {RegressionForm.CONTEXT, RegressionForm.LOAD_CONTEXT}


_TERMS = {
    RegressionForm.ADDITIVE: 3,
    RegressionForm.INTERACTION: 4,
    RegressionForm.CONTEXT: 4,
    RegressionForm.LOAD: 5,
    RegressionForm.LOAD_CONTEXT: 5,
}


class CostQuantity(StrEnum):
    """What a cost is a cost of; it decides the load term."""

    SECONDS = "seconds"
    JOULES = "joules"


@dataclass(frozen=True, slots=True)
class CostFunction:
    """One fitted regression.

    Raises ValueError where the number of coefficients does not fit the form, or one is not a sane
    number.
    """

    quantity: CostQuantity
    form: RegressionForm
    coefficients: tuple[float, ...]
    _b: tuple[float, float, float, float, float, float] = field(
        init=False, repr=False, compare=False
    )
    _shared: bool = field(init=False, repr=False, compare=False)
    is_linear: bool = field(init=False, repr=False, compare=False)
    """Whether the cost is linear in tokens out, so that the mean length has the mean cost."""
    typical_cost: float = field(init=False, repr=False, compare=False)
    """That of a request of 100 tokens in and 100 out, alone."""

    def __post_init__(self) -> None:
        if len(self.coefficients) != self.form.term_count:
            msg = (
                f"form {self.form.value!r} takes {self.form.term_count} coefficients, "
                f"not {len(self.coefficients)}"
            )
            raise ValueError(msg)
        if not all(abs(value) <= LARGEST_COEFFICIENT for value in self.coefficients):
            raise ValueError(
                f"coefficients must be finite and at most {LARGEST_COEFFICIENT:g} in size"
            )
        b0, b1, b2, b3, b4 = (*self.coefficients, 0.0, 0.0)[:5]
        half = b3 / 2.0 if self.form.reads_context else 0.0
        object.__setattr__(self, "_b", (b0, b1, b2, b3, half, b4))
        object.__setattr__(self, "_shared", self.quantity is CostQuantity.JOULES)
        object.__setattr__(self, "is_linear", not self.form.reads_context)
        object.__setattr__(self, "typical_cost", self.predict_cost(*_TYPICAL))

    def evaluate_form(
        self, tokens_in: float, tokens_out: float, running: float = 0.0, cached: float = 0.0
    ) -> float:
        """Evaluate the form as it is, possibly below zero."""
        b0, b1, b2, b3, half, b4 = self._b
        value = b0 + b1 * (tokens_in - cached)
        value += tokens_out * (b2 + b3 * tokens_in + half * tokens_out)
        if b4:
            value += b4 * (tokens_out / (1.0 + running) if self._shared else tokens_out * running)
        return value

    def cost_per_output_token(
        self, tokens_in: float, running: float = 0.0, tokens_out: float = 0.0
    ) -> float:
        """Return what a new token adds to the form: the mean over an answer of `tokens_out`."""
        _, _, b2, b3, half, b4 = self._b
        load = b4 / (1.0 + running) if self._shared else b4 * running
        return b2 + b3 * tokens_in + half * tokens_out + load

    def predict_cost(
        self, tokens_in: float, tokens_out: float, running: float = 0.0, cached: float = 0.0
    ) -> float:
        """Evaluate the form and floor it at `COST_FLOOR`."""
        return max(self.evaluate_form(tokens_in, tokens_out, running, cached), COST_FLOOR)
