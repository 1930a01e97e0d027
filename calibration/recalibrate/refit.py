"""One cost refitted from a window's sums: the form, the prior, the tests.

Forms, richest first; the first that is accepted is taken, and the report says why others were not:

    load, load-context      where the load's column varied by itself (o·r or o/(1+r))
    interaction, context
    additive

Of the two in a line the live profile's is tried first, and the other taken where its loss is lower
by a hundredth; without one in the live profile, i·o is first.

Rules:
- A form is accepted if it is well conditioned, every marginal cost is >= 0 over the observed range
  of lengths and loads, and load makes no request cheaper in seconds or dearer in joules.
  A form that fails by sign is tried again without i·o, and then without i where that could be
  zero; what is left out is 0 in the profile.
- Where the live profile knows load and the window hardly identifies it, the load's coefficient is
  kept from the live profile at the window's level, and the rest is fitted around it. That is so
  where everything ran at one load, where most of the load's variation is within the blocks of time,
  and where the live coefficient is within the 99.5% interval of a new one. A new one comes from the
  differences between blocks: a noisy reading of the load draws a least squares one to zero.
- With few requests the live profile is a Gaussian prior; see calibration.recalibrate.prior.
- Clusters are blocks of 5 to 15 minutes: neighbouring scrapes share a server's state, and with
  scrapes for clusters a 95% interval covered 26% where they were correlated at 0.9. Neighbouring
  blocks share some of it, too: errors come from the blocks' slow movements, see `solved`.
- A load's coefficient that is kept has the live profile's own error beside the level's.
- No refit moves the mean request by more than the largest change that is allowed: a step of that
  size is taken, and the next round sees the rest. Rows are winsorised around the live prediction,
  so that a profile that is far off cannot be mended in one step anyway.
"""

from dataclasses import dataclass

import numpy as np

from calibration.arrays import Floats
from calibration.recalibrate.form_choice import FormChoice, RefitRules
from calibration.recalibrate.holdout import HoldoutComparison, compare_on_holdout
from calibration.recalibrate.moments import ClusterMoments
from calibration.recalibrate.solved import (
    ClusterRobustFit,
    SingularMoments,
    WaldTest,
    compute_wald_test,
)
from calibration.recalibrate.sums import SumBlock
from calibration.recalibrate.variants import (
    LOAD_COLUMN,
    FormVariant,
    ObservedRange,
    build_base_columns,
    compute_observed_range,
)
from gateway.profile import CostRegression
from gateway.scheduling.cost import CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COLUMNS


@dataclass(frozen=True, slots=True)
class LiveProfileDrift:
    """The live profile held against the window: mean costs, its error there, and Chow's test.

    `rmse` is the root mean squared error as a share of the predictions' root mean square.
    """

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
    rejected_forms: tuple[str, ...]
    """Richer forms, and why not."""
    mean: Floats
    """The window's mean request, as the columns of the sums (unweighted)."""
    sd: Floats
    """Standard deviations of those columns (weighted)."""
    influence: float
    """By how much one scrape moves the mean prediction, at most, as a share of it.

    Least squares with a constant: that is its residuals' sum over n.
    """
    rmse: float
    """As the drift's."""
    change: float
    """The mean request's prediction over the live one's, before any limit of a step."""
    step: float
    """What the coefficients were multiplied with to stay within the largest change; 1: nothing."""
    holdout: HoldoutComparison
    """What the refit is worth on requests that it was not fitted to."""
    winsorised: tuple[float, float]
    """Share of the rows that were raised to a fifth, and cut to five times, the live prediction."""
    block_seconds: float
    attenuation: float
    """What a noisy reading of the load may make of the mean prediction, as a share of it."""

    @property
    def coefficients(self) -> list[float]:
        """All of the form's."""
        return [float(b) for b in self.step * self._expand_coefficients(self.solved.coefficients)]

    @property
    def covariance(self) -> list[list[float]]:
        """Of all the form's coefficients."""
        k = self.form.term_count
        full = np.zeros((k, k))
        full[np.ix_(self.used, self.used)] = self.step**2 * self.solved.covariance
        return [[float(v) for v in row] for row in full]

    def predict_cost(self, columns: Floats) -> tuple[float, float]:
        """Return the prediction at a row of the sums' columns, and half its 95% interval."""
        x = columns @ build_base_columns(self.form)[:, list(self.used)]
        return float(x @ self.solved.coefficients) * self.step, self.solved.compute_half_interval(
            x
        ) * self.step

    def _expand_coefficients(self, values: Floats) -> Floats:
        full = np.zeros(self.form.term_count)
        full[list(self.used)] = values
        return full


def refit_cost(
    quantity: CostQuantity,
    block: SumBlock,
    live: CostRegression,
    rules: RefitRules,
    rows: SumBlock | None = None,
) -> CostRefit:
    """Refit a cost; `rows` counts the rows. Raises SingularMoments where no form can be told."""
    seconds = rules.block_seconds or choose_block_seconds(block)
    blocks = block.group_by_time(seconds)
    whole = ClusterMoments.from_block(blocks)
    mean = np.array([block.sum_term(term or "n") for term in COLUMNS]) / block.n
    before = build_base_columns(live.form) @ np.array(live.coefficients)
    predicted, observed = float(mean @ before), block.sum_term("y") / block.n
    level = observed / predicted if predicted > 0.0 else 1.0
    plain = np.column_stack([blocks.get_term(term or "n") for term in COLUMNS])
    shifts = (blocks.get_term("y") - level * (plain @ before)) / (predicted * block.n or 1.0)
    fit = FormChoice(live, rules, whole, (level, shifts), compute_observed_range(block))
    variant, solved, wrong = fit.choose_variant()
    columns = variant.columns
    change = float(mean @ columns @ solved.coefficients) / predicted if predicted > 0.0 else np.inf
    step = 1.0
    if change > 0.0 and np.isfinite(change):
        step = float(np.clip(change, 1.0 / rules.max_change, rules.max_change) / change)

    def refit_part(part: ClusterMoments) -> Floats:
        return np.asarray(step * columns @ fit.solve_variant(variant, part).coefficients)

    b = step * columns @ solved.coefficients
    return CostRefit(
        quantity=quantity,
        form=variant.form,
        solved=solved,
        used=variant.used,
        kept_load=variant.keep_load,
        observed_range=fit.observed_range,
        drift=_compute_drift(whole, variant, before, (predicted, observed)),
        wrong_sign=wrong,
        rejected_forms=tuple(fit.rejected_forms),
        mean=mean,
        sd=whole.standard_deviations,
        influence=_compute_influence(
            ClusterMoments.from_block(block).combine_columns(columns), solved
        ),
        rmse=_compute_relative_rmse(whole, b),
        change=change,
        step=step,
        holdout=compare_on_holdout(whole, before, b, refit_part),
        winsorised=_compute_winsorised_shares(rows),
        block_seconds=seconds,
        attenuation=fit.estimate_attenuation(variant, float(mean[LOAD_COLUMN]) / observed)
        if observed > 0.0
        else 0.0,
    )


def choose_block_seconds(block: SumBlock) -> float:
    """Return the length of a cluster: 24 of them fill the window, within 5 to 15 minutes."""
    span = float(np.ptp(block.times)) if len(block.times) else 0.0
    return float(np.clip(span / _USUAL_BLOCKS, *_BLOCK_SECONDS))


_USUAL_BLOCKS = 24
_BLOCK_SECONDS = (300.0, 900.0)


def _compute_influence(scrapes: ClusterMoments, solved: ClusterRobustFit) -> float:
    left = scrapes.subtract_prediction(solved.coefficients).xy[:, 0]
    return float(np.abs(left).max()) / (scrapes.n * abs(scrapes.mean_y))


def _compute_relative_rmse(whole: ClusterMoments, coefficients: Floats) -> float:
    size = whole.sum_squared_predictions(coefficients)
    return (
        float(np.sqrt(whole.sum_squared_residuals(coefficients) / size))
        if size > 0.0
        else float("inf")
    )


def _compute_winsorised_shares(rows: SumBlock | None) -> tuple[float, float]:
    if rows is None or not rows.n:
        return 0.0, 0.0
    return rows.sum_term("low") / rows.n, rows.sum_term("high") / rows.n


def _compute_drift(
    whole: ClusterMoments, variant: FormVariant, before: Floats, means: tuple[float, float]
) -> LiveProfileDrift:
    """Hold the live coefficients against the window; `means` are the predicted and the observed.

    Chow's question, asked with robust errors: do the live profile's residuals depend on the
    columns of the new fit? Where the new form has all of the live one's terms this is the Wald
    test that both have the same coefficients.
    """
    try:
        chow = compute_wald_test(
            whole.subtract_prediction(before).combine_columns(variant.columns).solve_least_squares()
        )
    except (SingularMoments, np.linalg.LinAlgError):
        chow = None
    predicted, observed = means
    return LiveProfileDrift(predicted, observed, _compute_relative_rmse(whole, before), chow)
