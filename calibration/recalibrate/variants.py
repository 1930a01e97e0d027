"""The forms that a refit tries, what the window has seen, and what no form may say of it.

A variant is a form, the columns of it that are fitted, and whether the load's coefficient is kept
from the live profile. Columns are combinations of those of the sums: `interaction` has i·o,
`context` i·o + o²/2.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from calibration.arrays import Floats
from calibration.recalibrate.prior import LOAD_AT
from calibration.recalibrate.solved import ClusterRobustFit
from calibration.recalibrate.sums import SumBlock
from gateway.profile import CostRegression
from gateway.scheduling.cost import CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COLUMNS

TOKENS_IN_AT, TOKENS_OUT_AT, BOTH_AT = 1, 2, 3
"""Places of coefficients in a form; `prior.LOAD_AT` is the load's."""
TOKENS_OUT_COLUMN, LOAD_COLUMN = 2, 5
"""Places among the columns of the sums."""


def build_base_columns(form: RegressionForm) -> Floats:
    """Return each of a form's columns as a combination of those of the sums (6 x terms)."""
    found = np.zeros((len(COLUMNS), form.term_count))
    for at in range(min(form.term_count, LOAD_AT)):
        found[at, at] = 1.0
    if form.reads_context:
        found[4, BOTH_AT] = 0.5
    if form.knows_load:
        found[LOAD_COLUMN, LOAD_AT] = 1.0
    return found


@dataclass(frozen=True, slots=True)
class ObservedRange:
    """Lengths and load that the window is known to hold.

    Sums hide the ends of a range. But no mean is outside it: the lowest and highest mean of any
    scrape interval (the highest weighted by length) are inside, and are the ends given here.
    """

    tokens_in: tuple[float, float]
    tokens_out: tuple[float, float]
    load: tuple[float, float] | None
    """z per token out: r for seconds, 1/(1+r) for joules; None where it is not known."""

    def compute_running_range(self, quantity: CostQuantity) -> tuple[float, float] | None:
        """Return the load as requests running."""
        if self.load is None:
            return None
        low, high = self.load
        if quantity is CostQuantity.SECONDS:
            return low, high
        if low <= 0.0:  # more at once than can be counted
            return None
        return max(0.0, 1.0 / high - 1.0), max(0.0, 1.0 / low - 1.0)


@dataclass(frozen=True, slots=True)
class FormVariant:
    """A form, which of its columns are fitted, and whether the load's coefficient is kept."""

    form: RegressionForm
    used: tuple[int, ...]
    keep_load: bool = False

    @property
    def columns(self) -> Floats:
        """The columns fitted, as combinations of those of the sums."""
        return build_base_columns(self.form)[:, list(self.used)]

    def __str__(self) -> str:
        missing = [f"b{at}" for at in range(self.form.term_count) if at not in self.used]
        without = f" without {', '.join(missing)}" if missing else ""
        return self.form.value + without + (", b4 kept" if self.keep_load else "")


TWINS = {
    RegressionForm.LOAD: RegressionForm.LOAD_CONTEXT,
    RegressionForm.LOAD_CONTEXT: RegressionForm.LOAD,
    RegressionForm.INTERACTION: RegressionForm.CONTEXT,
    RegressionForm.CONTEXT: RegressionForm.INTERACTION,
}


def list_variants(form: RegressionForm | None, live: CostRegression) -> Iterator[FormVariant]:
    """Yield what to try, best first."""
    context = live.form.reads_context
    loaded = RegressionForm.LOAD_CONTEXT if context else RegressionForm.LOAD
    plain = RegressionForm.CONTEXT if context else RegressionForm.INTERACTION
    for one in [form] if form else [loaded, plain, RegressionForm.ADDITIVE]:
        if one.knows_load:
            for keep in (False, True) if live.form.knows_load else (False,):
                for used in ((0, 1, 2, 3, 4), (0, 1, 2, 4), (0, 2, 4)):
                    yield FormVariant(one, used, keep)
        elif one is RegressionForm.ADDITIVE:
            yield FormVariant(one, (0, 1, 2))
            yield FormVariant(one, (0, 2))
        else:
            yield FormVariant(one, (0, 1, 2, 3))


def compute_observed_range(block: SumBlock) -> ObservedRange:
    """Look at each scrape by itself; one whose divisor is 0 tells nothing."""

    def compute_shares(term: str, per: str) -> Floats:
        some = block.get_term(per) > 0.0
        return np.asarray(block.get_term(term)[some] / block.get_term(per)[some])

    share = compute_shares("z", "o")
    return ObservedRange(
        (
            float(compute_shares("u", "n").min(initial=np.inf)),
            float(compute_shares("wu2", "wu").max(initial=0.0)),
        ),
        (float(compute_shares("o", "n").min()), float(compute_shares("wo2", "wo").max())),
        (float(share.min()), float(share.max())),
    )


def find_wrong_sign(
    variant: FormVariant, solved: ClusterRobustFit, seen: ObservedRange
) -> str | None:
    """Say what costs less than nothing within what was seen."""
    b = np.zeros(LOAD_AT + 1)
    b[list(variant.used)] = solved.coefficients
    if b[LOAD_AT] < 0.0:
        return f"load has the wrong sign ({b[LOAD_AT]:.3g} per token)"
    per_in = min(b[1] + b[3] * o for o in seen.tokens_out)
    if per_in < 0.0:
        return f"a token in costs {per_in:.3g}, less than nothing"
    before = seen.tokens_out if variant.form.reads_context else (0.0,)
    per_out = min(
        b[2] + b[3] * (i + o) + b[4] * z
        for i in seen.tokens_in
        for o in before
        for z in seen.load or (0.0,)
    )
    if per_out < 0.0:
        return f"a token out costs {per_out:.3g}, less than nothing"
    return None
