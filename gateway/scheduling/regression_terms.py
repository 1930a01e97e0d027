"""The sums that regressions and length fits need, by name: what gateways export and refits read.

A term spells its product, summed over rows: `wuo` is the sum of w·u·o, `o2` of o·o, `n` counts.

    w   weight of a row, 1/p², p the live prediction of its cost (capped: see `WeighedPrediction`)
    u   prompt tokens that no prefix cache held         i   prompt tokens, all of them
    o   answer tokens                                   e   our own count of the prompt's tokens
    z   the load's column: o·r for seconds, r the mean number of other requests; o·m for joules, m
        the mean of 1/n over the request's time, n all that ran there (o/(1+r) at a steady load)
    y   the cost, held to [p/5, 5p] (winsorised)        t   y - p, held to [-p/3, p/3]
    l   ln o                                            p   the live prediction    s   seconds
    d   digits and punctuation marks of the prompt

Columns are 1, u, o, i·o, o², z: `interaction` takes i·o, `context` i·o + o²/2, so that every form's
normal equations are in one block. With one weighted square of each pair a least squares fit is
exact; with `t` one can ask whether ordinary rows show what a fit says, or a few odd ones made it.
"""

from typing import Final, NamedTuple

from gateway.scheduling.cost import COST_FLOOR, CostFunction
from gateway.scheduling.tuple_maker import tuple_maker

COSTS: Final = "costs"
ROWS: Final = "rows"
METERED: Final = "metered"
OUTPUT: Final = "output"
PROMPT: Final = "prompt"

COLUMNS: Final = ("", "u", "o", "io", "o2", "z")
"""The columns of a cost as terms; the first is the constant."""
PLAIN_TERMS: Final = ("n", "u", "o", "io", "o2", "z", "y")
"""Unweighted: the mean request."""
SQUARE_TERMS: Final = (
    "w", "wu", "wo", "wio", "wo2", "wz",
    "wu2", "wuo", "wuio", "wuo2", "wuz",
    "wio2", "wo3", "woz",
    "wi2o2", "wio3", "wioz",
    "wo4", "wo2z", "wz2",
)  # fmt: skip
COST_TERMS: Final = (
    *PLAIN_TERMS,
    *SQUARE_TERMS,
    "wy", "wuy", "woy", "wioy", "wo2y", "wzy", "wy2",
    "wt", "wut", "wot", "wiot", "wo2t", "wzt",
)  # fmt: skip
ROW_TERMS: Final = ("rows", "floored", "low", "high")
"""Rows offered to a cost's sums; those left out because their live prediction was floored; those
whose cost was raised to a fifth, or cut to five times, of it."""
METERED_TERMS: Final = ("n", "p", "s", "mn", "mp", "ms")
"""Rows, their predicted joules, their seconds; the same of those whose joules were measured."""
LIMIT_OCTAVES: Final = 20
"""Cut answers are counted by the octave of their limit: from 2^j to below 2^(j+1)."""
OUTPUT_TERMS: Final = (
    "n", "l", "l2",
    *(f"cut{at}" for at in range(LIMIT_OCTAVES)),
    *(f"cut{at}_l" for at in range(LIMIT_OCTAVES)),
)  # fmt: skip
"""Whole answers: count, sum of ln o and of its square. Cut ones, by octave: count and sum of ln o,
which is their limit."""
PROMPT_TERMS: Final = ("n", "e", "i", "ei", "e2", "i2", "d", "ed", "d2", "di")

TERMS: Final = {
    COSTS: COST_TERMS,
    ROWS: ROW_TERMS,
    METERED: METERED_TERMS,
    OUTPUT: OUTPUT_TERMS,
    PROMPT: PROMPT_TERMS,
}
"""The terms of each basis, in the order in which they are kept."""

WINSOR: Final = 5
"""A row's cost counts as at least a fifth and at most five times its live prediction."""
ORDINARY: Final = 3
"""`t` is held to a third of the prediction."""
_LEAST_SHARE: Final = 0.1


class WeighedPrediction(NamedTuple):
    """What the live profile says of a row's cost.

    `value` is the regression as it is, in seconds or joules; `least` what a prediction counts as
    at least where a row is weighted: a tenth of that of a request of 100 tokens in and out. Without
    it requests of one token would outweigh all others.
    """

    value: float
    least: float

    @staticmethod
    def of(
        cost: CostFunction, tokens_in: float, tokens_out: float, running: float, cached: float
    ) -> "WeighedPrediction":
        """Ask a cost."""
        value = cost.evaluate_form(tokens_in, tokens_out, running, cached)
        return _make_weighed((value, _LEAST_SHARE * cost.typical_cost))

    @property
    def floored(self) -> bool:
        """Whether the prediction is no number to weigh a row by."""
        return self.value <= COST_FLOOR

    @property
    def weighed(self) -> float:
        """What the row is weighted by: the prediction, or `least`."""
        return max(self.value, self.least)


_make_weighed = tuple_maker(WeighedPrediction)
