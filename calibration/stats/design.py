"""The cost forms of `gateway.scheduling.cost` as design matrices, and what each term means.

With i tokens in, o tokens out, r other requests running the columns are 1, i, o, then i·o or
o(i+o/2), and o·r for seconds or o/(1+r) for joules, as far as the form goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from calibration.arrays import Floats
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm

if TYPE_CHECKING:  # recalibration comes through here and does without pandas
    import pandas as pd

Ranges = Mapping[str, tuple[float, float]]

UNITS = {CostQuantity.SECONDS: "s", CostQuantity.JOULES: "J"}


@dataclass(frozen=True, slots=True)
class RegressionTerm:
    """One term of a form: its coefficient's name, what it multiplies, and its unit."""

    name: str
    factor: str
    unit: str


def list_terms(form: RegressionForm, quantity: CostQuantity) -> list[RegressionTerm]:
    """Return the form's terms in the order of its coefficients."""
    unit = UNITS[quantity]
    shared = quantity is CostQuantity.JOULES
    known = (
        RegressionTerm("b0", "1", unit),
        RegressionTerm("b1", "in", f"{unit}/token"),
        RegressionTerm("b2", "out", f"{unit}/token"),
        RegressionTerm(
            "b3", "out x (in + out/2)" if form.reads_context else "in x out", f"{unit}/token²"
        ),
        RegressionTerm("b4", "out/(1+running)" if shared else "out x running", f"{unit}/token"),
    )
    return list(known[: form.term_count])


def build_design_matrix(
    form: RegressionForm, quantity: CostQuantity, frame: pd.DataFrame
) -> Floats:
    """Return the n x k design of rows with tokens_in, tokens_out and, for load, running."""
    i = frame["tokens_in"].to_numpy(dtype=float)
    o = frame["tokens_out"].to_numpy(dtype=float)
    r = frame["running"].to_numpy(dtype=float) if form.knows_load else np.zeros(len(frame))
    return build_columns(form, quantity, i, o, r)


def build_columns(
    form: RegressionForm, quantity: CostQuantity, i: Floats, o: Floats, r: Floats
) -> Floats:
    """Return each coefficient's factor, along a last axis added to that of the arguments."""
    found = [np.ones_like(i), i, o]
    if form.reads_context:
        found.append(o * (i + o / 2.0))
    elif form is not RegressionForm.ADDITIVE:
        found.append(i * o)
    if form.knows_load:
        found.append(o / (1.0 + r) if quantity is CostQuantity.JOULES else o * r)
    return np.stack(found, axis=-1)


def find_observed_ranges(
    form: RegressionForm, frame: pd.DataFrame
) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of each regressor's variables."""
    names = ["tokens_in", "tokens_out", *(["running"] if form.knows_load else [])]
    return {name: (float(frame[name].min()), float(frame[name].max())) for name in names}


@dataclass(frozen=True, slots=True)
class RangeCorner:
    """A corner of the fitted range, with the cost there and what one more token adds to it."""

    tokens_in: float
    tokens_out: float
    running: float
    cost: float
    per_token_in: float
    per_token_out: float

    def __str__(self) -> str:
        """Say where it is."""
        load = f", {self.running:g} running" if self.running else ""
        return f"{self.tokens_in:g} tokens in, {self.tokens_out:g} out{load}"


def evaluate_corners(cost: CostFunction, fitted: Ranges) -> list[RangeCorner]:
    """Evaluate a cost at the corners of its fitted range.

    Each form is linear in i, linear or quadratic in o, and monotone in r with the others held, so
    that nothing inside the range is lower than the lowest corner, or than the bottom of the
    parabola over o, which is added where it is inside.
    """
    sides = [sorted(set(fitted.get(name, (0.0, 0.0)))) for name in _VARIABLES]
    if cost.form.reads_context:
        sides[1] += _find_minima(cost, sides)
    found = []
    for i, o, r in product(*sides):
        here = cost.evaluate_form(i, o, r)
        found.append(
            RangeCorner(
                i, o, r, here,
                cost.evaluate_form(i + 1.0, o, r) - here,
                cost.evaluate_form(i, o + 1.0, r) - here,
            )
        )  # fmt: skip
    return found


def _find_minima(cost: CostFunction, sides: list[list[float]]) -> list[float]:
    """Return the answer lengths inside the range at which a cost is lowest."""
    found = []
    curve = cost.coefficients[3]
    for i, r in product(sides[0], sides[2]):
        bottom = -cost.cost_per_output_token(i, r) / curve if curve > 0.0 else 0.0
        if sides[1][0] < bottom < sides[1][-1]:
            found.append(bottom)
    return found


_VARIABLES = ("tokens_in", "tokens_out", "running")
