"""One cost refitted from a window's sums: the form, the pull towards the live profile, the tests.

Forms, richest first; the first that stands is taken, and the report says why the others did not:

    load          1, i, o, i·o, z   where z, the load's column, varied by itself (o·r or o/(1+r))
    interaction   1, i, o, i·o
    additive      1, i, o

Rules:
- A form stands where its columns can be told apart, no token costs less than nothing within the
  lengths and loads that the window is known to hold, and load never makes a request cheaper in
  seconds or dearer in joules. A form that fails by sign is tried again without i·o, and then
  without i where that could be zero; what is left out is 0 in the profile.
- Where the live profile knows load and the window can hardly tell it, the load's coefficient is
  kept from the live profile, with its own error and at the window's level, and the rest is fitted
  around it. That is so where everything ran at one load, and where most of the load's variation is
  within the scrape intervals: how many run at dispatch is a noisy reading of how many run
  meanwhile, and noise in a column pulls its coefficient to zero. (At one request per second on the
  simulator b4 fitted anew came out a third of the truth, and the error at other loads was 39%
  instead of 5%.)
- Few requests are pulled towards the live profile; calibration.recalibrate.prior says how.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.recalibrate import moments
from calibration.recalibrate import prior as pull
from calibration.recalibrate.moments import (
    ClusterMoments,
    ClusterRobustFit,
    SingularMoments,
    WaldTest,
)
from calibration.recalibrate.prior import LOAD_AT, PriorSettings
from calibration.recalibrate.sums import LOAD, SumBlock
from gateway.profile import CostRegression
from gateway.scheduling.cost import CostQuantity, RegressionForm

Floats = NDArray[np.float64]

COLUMNS = ("n", "i", "o", "io", "z")
TOKENS_IN_AT, TOKENS_OUT_AT, BOTH_AT = 1, 2, 3
MIN_TOLERANCE = 0.02
"""Share of the load column's squares that the other columns must leave over."""
MIN_BETWEEN_SHARE = 0.5
"""Share of its variation that must lie between scrapes before a live coefficient of load goes."""


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
class LiveProfileDrift:
    """The live profile held against the window: mean costs, its RMSE there, and Chow's test."""

    predicted: float
    observed: float
    rmse: float
    chow: WaldTest | None
    """Whether the live coefficients hold in the window."""

    @property
    def relative_bias(self) -> float:
        """By how much the live profile is too high (positive) or too low, as a share."""
        return self.predicted / self.observed - 1.0


@dataclass(frozen=True, slots=True)
class CostRefit:
    """One cost refitted; arrays follow the form's coefficients."""

    quantity: CostQuantity
    form: RegressionForm
    solved: ClusterRobustFit
    used: tuple[int, ...]
    """Which of the form's columns were fitted; the others are 0."""
    kept_load: bool
    """Whether the load's coefficient is the live profile's."""
    observed_range: ObservedRange
    drift: LiveProfileDrift
    wrong_sign: str | None
    """What costs less than nothing, None where nothing does."""
    passed_over: tuple[str, ...]
    """Richer forms, and why not."""
    mean: Floats
    """The window's mean request, as all five columns."""
    sd: Floats
    influence: float
    """By how much one scrape moves the mean request's prediction, at most, as a share of the mean.

    Least squares with a constant: that is its residuals' sum over n.
    """

    @property
    def coefficients(self) -> list[float]:
        """All of the form's."""
        return [float(b) for b in self._expand_coefficients(self.solved.coefficients)]

    @property
    def covariance(self) -> list[list[float]]:
        """Of all the form's coefficients."""
        k = self.form.term_count
        full = np.zeros((k, k))
        full[np.ix_(self.used, self.used)] = self.solved.covariance
        return [[float(v) for v in row] for row in full]

    def predict_cost(self, columns: Floats) -> tuple[float, float]:
        """Return the prediction at a row of all five columns, and half its 95% interval."""
        x = columns[list(self.used)]
        return float(x @ self.solved.coefficients), self.solved.compute_half_interval(x)

    def _expand_coefficients(self, values: Floats) -> Floats:
        full = np.zeros(self.form.term_count)
        full[list(self.used)] = values
        return full


def refit_cost(
    quantity: CostQuantity, block: SumBlock, live: CostRegression, *, form: RegressionForm | None, few: PriorSettings,
    max_condition: float,
) -> CostRefit:  # fmt: skip
    """Refit a cost. Raises Singular, saying what cannot be told, where no form can be."""
    known = COLUMNS if block.basis == LOAD else COLUMNS[:4]
    whole = ClusterMoments.from_block(block, known, "y")
    seen = _compute_observed_range(block)
    if live.form.term_count > len(known):
        raise SingularMoments("the live profile knows load, and these sums do not")
    before = np.zeros(len(known))
    before[: live.form.term_count] = live.coefficients
    predicted = float(whole.column_means @ before)
    level = whole.mean_y / predicted if predicted > 0.0 else 1.0
    passed: list[str] = []
    free = False  # whether a token in was found to cost nothing, or less by chance
    last: tuple[_FormVariant, ClusterRobustFit, str | None] | None = None
    for variant in _yield_variants(form, live, len(known)):
        if TOKENS_IN_AT not in variant.used and not free:
            continue
        chosen = whole.select_columns(variant.used)
        try:
            _check_identifiable(whole, variant, live, max_condition)
            weight = few.compute_weight(whole.n)
            prior = pull.build_prior(
                chosen, variant.used, live, level, weight, keep_load=variant.keep_load
            )
            solved = chosen.solve_least_squares(prior)
        except SingularMoments as error:
            passed.append(f"{variant}: {error}")
            continue
        wrong = _find_wrong_sign(solved, variant.used, seen)
        last = (variant, solved, wrong)
        if wrong is None:
            break
        if TOKENS_IN_AT in variant.used and BOTH_AT not in variant.used:
            free = bool(solved.high[TOKENS_IN_AT] >= 0.0)
        passed.append(f"{variant}: {wrong}")
    if last is None:
        raise SingularMoments("; ".join(passed))
    variant, solved, wrong = last
    missing = np.zeros(len(COLUMNS) - len(known))
    return CostRefit(
        quantity=quantity,
        form=variant.form,
        solved=solved,
        used=variant.used,
        kept_load=variant.keep_load,
        observed_range=seen,
        drift=_compute_drift(whole, variant.used, before),
        wrong_sign=wrong,
        passed_over=tuple(passed),
        mean=np.append(whole.column_means, missing),
        sd=np.append(whole.standard_deviations, missing),
        influence=_compute_influence(whole.select_columns(variant.used), solved),
    )


def _compute_influence(chosen: ClusterMoments, solved: ClusterRobustFit) -> float:
    left = chosen.subtract_prediction(solved.coefficients).xy[:, 0]
    return float(np.abs(left).max()) / (chosen.n * abs(chosen.mean_y))


@dataclass(frozen=True, slots=True)
class _FormVariant:
    """A form, which of its columns are fitted, and whether the load's coefficient is kept."""

    form: RegressionForm
    used: tuple[int, ...]
    keep_load: bool = False

    def __str__(self) -> str:
        missing = [f"b{at}" for at in range(self.form.term_count) if at not in self.used]
        without = f" without {', '.join(missing)}" if missing else ""
        return self.form.value + without + (", b4 kept" if self.keep_load else "")


def _yield_variants(
    form: RegressionForm | None, live: CostRegression, known: int
) -> Iterator[_FormVariant]:
    """Yield what to try, best first."""
    forms = (
        [form]
        if form
        else [RegressionForm.LOAD, RegressionForm.INTERACTION, RegressionForm.ADDITIVE]
    )
    if RegressionForm.LOAD in forms and known >= RegressionForm.LOAD.term_count:
        for keep in (False, True) if live.form is RegressionForm.LOAD else (False,):
            for used in ((0, 1, 2, 3, 4), (0, 1, 2, 4), (0, 2, 4)):
                yield _FormVariant(RegressionForm.LOAD, used, keep)
    if RegressionForm.INTERACTION in forms:
        yield _FormVariant(RegressionForm.INTERACTION, (0, 1, 2, 3))
    if RegressionForm.ADDITIVE in forms:
        yield _FormVariant(RegressionForm.ADDITIVE, (0, 1, 2))
        yield _FormVariant(RegressionForm.ADDITIVE, (0, 2))


def _check_identifiable(
    whole: ClusterMoments, variant: _FormVariant, live: CostRegression, max_condition: float
) -> None:
    """Raise Singular where the window cannot tell the columns apart."""
    fitted = [at for at in variant.used if at != LOAD_AT or not variant.keep_load]
    if LOAD_AT in fitted:
        if whole.select_columns(fitted).compute_tolerance(fitted.index(LOAD_AT)) < MIN_TOLERANCE:
            raise SingularMoments("load hardly varied by itself")
        if live.form is RegressionForm.LOAD:
            share = whole.compute_between_share(LOAD_AT, per=TOKENS_OUT_AT)
            if share < MIN_BETWEEN_SHARE:
                raise SingularMoments(
                    f"only {share:.0%} of the load's variation is between scrapes"
                )
    condition = whole.select_columns(fitted).compute_condition()
    if condition > max_condition:
        raise SingularMoments(f"condition number {condition:.3g}, at most {max_condition:g}")


def _compute_observed_range(block: SumBlock) -> ObservedRange:
    """Look at each scrape by itself; one whose divisor is 0 tells nothing."""

    def compute_shares(term: str, per: str) -> Floats:
        some = block.get_term(per) > 0.0
        return np.asarray(block.get_term(term)[some] / block.get_term(per)[some])

    load = None
    if block.basis == LOAD:
        share = compute_shares("z", "o")
        load = (float(share.min()), float(share.max()))
    return ObservedRange(
        (float(compute_shares("i", "n").min()), float(compute_shares("i2", "i").max())),
        (float(compute_shares("o", "n").min()), float(compute_shares("o2", "o").max())),
        load,
    )


def _find_wrong_sign(
    solved: ClusterRobustFit, used: Sequence[int], seen: ObservedRange
) -> str | None:
    """Say what costs less than nothing within what was seen."""
    b = np.zeros(len(COLUMNS))
    b[list(used)] = solved.coefficients
    if b[4] < 0.0:
        return f"load has the wrong sign ({b[4]:.3g} per token)"
    per_in = min(b[1] + b[3] * o for o in seen.tokens_out)
    if per_in < 0.0:
        return f"a token in costs {per_in:.3g}, less than nothing"
    loads = seen.load or (0.0, 0.0)
    per_out = min(b[2] + b[3] * i + b[4] * z for i in seen.tokens_in for z in loads)
    if per_out < 0.0:
        return f"a token out costs {per_out:.3g}, less than nothing"
    return None


def _compute_drift(whole: ClusterMoments, used: Sequence[int], before: Floats) -> LiveProfileDrift:
    """Hold the live coefficients against the window.

    Chow's question, asked with robust errors: do the live profile's residuals depend on the
    columns of the new fit? Where the new form has all of the live one's terms this is the Wald
    test that both have the same coefficients.
    """
    left = whole.subtract_prediction(before)
    try:
        chow = moments.compute_wald_test(left.select_columns(used).solve_least_squares())
    except (SingularMoments, np.linalg.LinAlgError):
        chow = None
    squares = max(0.0, float(left.yy.sum()))
    return LiveProfileDrift(
        predicted=float(whole.column_means @ before),
        observed=whole.mean_y,
        rmse=float(np.sqrt(squares / whole.n)),
        chow=chow,
    )
