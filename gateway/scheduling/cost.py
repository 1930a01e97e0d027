"""Predicted seconds and joules of one request: three linear forms over token counts.

With i tokens in, o tokens out and r requests running there at dispatch:

    additive      b0 + b1 i + b2 o
    interaction   b0 + b1 i + b2 o + b3 i o
    load          b0 + b1 i + b2 o + b3 i o + b4 o r        for seconds
                  b0 + b1 i + b2 o + b3 i o + b4 o/(1+r)    for joules

The first two are the published forms (Wilkins et al., "Offline Energy-Optimal LLM Serving",
2024); `load` adds that a batch shares the energy of a decode step and lengthens it.
"""

from dataclasses import dataclass, field
from enum import StrEnum

COST_FLOOR = 1e-3
"""Smallest prediction, in seconds or joules: a regression may cross zero, a cost may not."""

LARGEST_COEFFICIENT = 1e12
"""Largest coefficient taken, in size: far above any real cost, far below overflow."""


class RegressionForm(StrEnum):
    """Which terms a cost has."""

    ADDITIVE = "additive"
    INTERACTION = "interaction"
    LOAD = "load"

    @property
    def term_count(self) -> int:
        """Number of coefficients, b0 included."""
        return {RegressionForm.ADDITIVE: 3, RegressionForm.INTERACTION: 4, RegressionForm.LOAD: 5}[
            self
        ]


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
    _b: tuple[float, float, float, float, float] = field(init=False, repr=False, compare=False)
    _shared: bool = field(init=False, repr=False, compare=False)

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
        object.__setattr__(self, "_b", (b0, b1, b2, b3, b4))
        object.__setattr__(self, "_shared", self.quantity is CostQuantity.JOULES)

    def evaluate_form(self, tokens_in: float, tokens_out: float, running: float = 0) -> float:
        """Evaluate the form as it is, possibly below zero."""
        b0, b1, b2, b3, b4 = self._b
        value = b0 + b1 * tokens_in + b2 * tokens_out + b3 * tokens_in * tokens_out
        if b4:
            value += b4 * (tokens_out / (1 + running) if self._shared else tokens_out * running)
        return value

    def cost_per_output_token(self, tokens_in: float, running: float = 0) -> float:
        """Return what one more output token adds to `evaluate_form`."""
        _, _, b2, b3, b4 = self._b
        return b2 + b3 * tokens_in + (b4 / (1 + running) if self._shared else b4 * running)

    def predict_cost(self, tokens_in: float, tokens_out: float, running: float = 0) -> float:
        """Evaluate the form and floor it at `COST_FLOOR`."""
        return max(self.evaluate_form(tokens_in, tokens_out, running), COST_FLOOR)
