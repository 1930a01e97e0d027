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

FLOOR = 1e-3
"""Smallest prediction, in seconds or joules: a regression may cross zero, a cost may not."""

LARGEST = 1e12
"""Largest coefficient taken, in size: far above any real cost, far below overflow."""


class Form(StrEnum):
    """Which terms a cost has; simpler ones first."""

    ADDITIVE = "additive"
    INTERACTION = "interaction"
    CONTEXT = "context"
    LOAD = "load"
    LOAD_CONTEXT = "load-context"

    @property
    def terms(self) -> int:
        """Number of coefficients, b0 included."""
        return _TERMS[self]

    @property
    def knows_load(self) -> bool:
        """Whether the last coefficient is the load's."""
        return self in {Form.LOAD, Form.LOAD_CONTEXT}

    @property
    def reads_context(self) -> bool:
        """Whether b3 is per token of context read, o(i+o/2), rather than per i·o."""
        return self in {Form.CONTEXT, Form.LOAD_CONTEXT}


_TERMS = {
    Form.ADDITIVE: 3, Form.INTERACTION: 4, Form.CONTEXT: 4, Form.LOAD: 5, Form.LOAD_CONTEXT: 5,
}  # fmt: skip


class Quantity(StrEnum):
    """What a cost is a cost of; it decides the load term."""

    SECONDS = "seconds"
    JOULES = "joules"


@dataclass(frozen=True, slots=True)
class Cost:
    """One fitted regression.

    Raises ValueError where the number of coefficients does not fit the form, or one is not a sane
    number.
    """

    quantity: Quantity
    form: Form
    coefficients: tuple[float, ...]
    _b: tuple[float, float, float, float, float, float] = field(
        init=False, repr=False, compare=False
    )
    _shared: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.coefficients) != self.form.terms:
            msg = (
                f"form {self.form.value!r} takes {self.form.terms} coefficients, "
                f"not {len(self.coefficients)}"
            )
            raise ValueError(msg)
        if not all(abs(value) <= LARGEST for value in self.coefficients):
            raise ValueError(f"coefficients must be finite and at most {LARGEST:g} in size")
        b0, b1, b2, b3, b4 = (*self.coefficients, 0.0, 0.0)[:5]
        half = b3 / 2.0 if self.form.reads_context else 0.0
        object.__setattr__(self, "_b", (b0, b1, b2, b3, half, b4))
        object.__setattr__(self, "_shared", self.quantity is Quantity.JOULES)

    def raw(
        self, tokens_in: float, tokens_out: float, running: float = 0.0, cached: float = 0.0
    ) -> float:
        """Evaluate the form as it is, possibly below zero."""
        b0, b1, b2, b3, half, b4 = self._b
        value = b0 + b1 * (tokens_in - cached)
        value += tokens_out * (b2 + b3 * tokens_in + half * tokens_out)
        if b4:
            value += b4 * (tokens_out / (1.0 + running) if self._shared else tokens_out * running)
        return value

    def per_token(self, tokens_in: float, running: float = 0.0, tokens_out: float = 0.0) -> float:
        """Return what one new token adds to `raw`: the mean over an answer of `tokens_out`."""
        _, _, b2, b3, half, b4 = self._b
        load = b4 / (1.0 + running) if self._shared else b4 * running
        return b2 + b3 * tokens_in + half * tokens_out + load

    def predict(
        self, tokens_in: float, tokens_out: float, running: float = 0.0, cached: float = 0.0
    ) -> float:
        """Evaluate the form and floor it at `FLOOR`."""
        return max(self.raw(tokens_in, tokens_out, running, cached), FLOOR)
