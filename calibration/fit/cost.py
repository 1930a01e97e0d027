"""One cost (seconds or joules) of one model: the forms tried, and the one chosen.

The choice, simplest form first: a richer form takes over where its out-of-fold RMSE is lower *and*
the 95% interval of a coefficient that it adds excludes zero (anything less is noise, and the
simpler form extrapolates better); and never where it makes a token cost less than nothing somewhere
in the fitted range while the simpler form does not. A form that predicts a cost below zero in the
fitted range is chosen only where every form does, and then no profile may be written of it. Of two
forms with as many terms (i·o or context) the one with the lower out-of-fold loss is taken.

The loss is the squared error, or the squared error over the predicted cost: `relative`. In a grid
of lengths from 8 to 2,048 the dearest cells are a thousand times the cheapest: fitted by plain
errors those decide everything, and the cheap ones come out below zero.
"""

from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from calibration.stats import cross_validation as folds
from calibration.stats import design, ols
from calibration.tables.columns import BadInput
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm

MIN_ROWS_PER_TERM = 4
_MIN_DISTINCT_VALUES = 2
_MIN_UNLOADED_R2 = 0.9


class Loss(StrEnum):
    """What a fit makes small: errors in the cost's unit, or as shares of the predicted cost."""

    ABSOLUTE = "absolute"
    RELATIVE = "relative"


@dataclass(frozen=True, slots=True)
class FormTrial:
    """A form that was fitted, or the reason why it was not (`refused`)."""

    form: RegressionForm
    fitted: ols.LeastSquaresFit | None = None
    errors: folds.OutOfFoldErrors | None = None
    corners: tuple[design.RangeCorner, ...] = ()
    refused: str | None = None
    negative_reason: str | None = None
    """Where it predicts a cost below zero inside the fitted range, and what to do."""

    @property
    def is_plausible(self) -> bool:
        """Whether no token costs less than nothing in the fitted range."""
        return all(min(at.per_token_in, at.per_token_out) >= 0.0 for at in self.corners)


@dataclass(frozen=True, slots=True)
class CostFit:
    """The chosen fit of one cost; `rows` is what it was fitted to."""

    quantity: CostQuantity
    form: RegressionForm
    fitted: ols.LeastSquaresFit
    errors: folds.OutOfFoldErrors
    corners: tuple[design.RangeCorner, ...]
    fitted_ranges: dict[str, tuple[float, float]]
    trials: tuple[FormTrial, ...]
    why: str
    negative_reason: str | None
    """Why no profile may be written of it, None where one may."""
    rows: pd.DataFrame
    loss: Loss = Loss.ABSOLUTE

    @property
    def cost_function(self) -> CostFunction:
        """The pure cost as the scheduler evaluates it."""
        return CostFunction(self.quantity, self.form, tuple(map(float, self.fitted.coefficients)))


def fit_cost(
    model: str,
    quantity: CostQuantity,
    rows: pd.DataFrame,
    *,
    form: RegressionForm | None,
    folds_: int,
    loss: Loss = Loss.ABSOLUTE,
) -> CostFit:
    """Fit one cost; `form` None picks the best. Raises BadInput saying what to do about it."""
    label = f"{model}: {quantity.value}"
    _check_rows(label, quantity, rows)
    forms = list(RegressionForm) if form is None else [form]
    tried = tuple(_try_form(one, quantity, rows, folds_, loss) for one in forms)
    usable = [one for one in tried if one.refused is None]
    if not usable:
        raise BadInput(f"{label}: {'; '.join(f'{t.form.value}: {t.refused}' for t in tried)}")
    sound = [one for one in usable if one.negative_reason is None] or usable[:1]
    chosen = sound[0]
    why = "the form that was asked for" if form else "the simplest form; no richer one does better"
    for rich in sound[1:]:
        if _should_replace(chosen, rich):
            why = f"better than {chosen.form.value} out of fold, and by more than noise"
            chosen = rich
    assert chosen.fitted is not None  # noqa: S101 - refused is None
    assert chosen.errors is not None  # noqa: S101
    return CostFit(
        quantity=quantity,
        form=chosen.form,
        fitted=chosen.fitted,
        errors=chosen.errors,
        corners=chosen.corners,
        fitted_ranges=design.find_observed_ranges(chosen.form, rows),
        trials=tried,
        why=why,
        negative_reason=chosen.negative_reason,
        rows=rows,
        loss=loss,
    )


def _check_rows(label: str, quantity: CostQuantity, rows: pd.DataFrame) -> None:
    """Refuse rows that cannot tell any form."""
    need = MIN_ROWS_PER_TERM * RegressionForm.ADDITIVE.term_count
    if len(rows) < need:
        raise BadInput(
            f"{label}: too few rows: {len(rows)} usable, at least {need} needed; measure more "
            "(joulegate profile), or leave the model out with --model"
        )
    for name in ("tokens_in", "tokens_out"):
        if rows[name].nunique() < _MIN_DISTINCT_VALUES:
            raise BadInput(
                f"{label}: {name} is {rows[name].iloc[0]:g} in every row, so what a token costs "
                "cannot be told; measure several lengths (joulegate profile's grid does)"
            )
    if rows[quantity.value].nunique() < _MIN_DISTINCT_VALUES:
        raise BadInput(
            f"{label}: the same value in every row ({rows[quantity.value].iloc[0]:g}); "
            f"is --col {quantity.value}=… the right column?"
        )


def _try_form(
    form: RegressionForm, quantity: CostQuantity, rows: pd.DataFrame, folds_: int, loss: Loss
) -> FormTrial:
    refused = _explain_unfittable(form, rows)
    if refused:
        return FormTrial(form, refused=refused)
    x = design.build_design_matrix(form, quantity, rows)
    y = rows[quantity.value].to_numpy(dtype=float)
    try:
        fitted = ols.fit_relative(x, y) if loss is Loss.RELATIVE else ols.fit_least_squares(x, y)
    except ols.SingularDesignError as error:
        return FormTrial(form, refused=f"{error}: vary tokens in and tokens out independently")
    errors = folds.cross_validate(x, y, min(folds_, len(rows)), fitted.sizes)
    cost = CostFunction(quantity, form, tuple(map(float, fitted.coefficients)))
    found = tuple(design.evaluate_corners(cost, design.find_observed_ranges(form, rows)))
    return FormTrial(
        form, fitted, errors, found, negative_reason=_explain_negative_cost(quantity, rows, found)
    )


def _explain_negative_cost(
    quantity: CostQuantity, rows: pd.DataFrame, found: tuple[design.RangeCorner, ...]
) -> str | None:
    """Say where a form predicts less than nothing, and what to do."""
    lowest = min(found, key=lambda corner: corner.cost)
    if lowest.cost >= 0.0:
        return None
    hint = (
        "if tokens_out counts the prompt too, say --output-includes-prompt; else "
        if includes_prompt(rows)
        else ""
    )
    if is_distorted_by_load(quantity, rows):
        hint = (
            "the rows under load do it, those alone fit well, so leave out the load "
            "(--where concurrency=1), or measure it with short prompts (joulegate profile); else "
        )
    return (
        f"predicts {lowest.cost:.3g} {design.UNITS[quantity]} at {lowest}, below zero inside the "
        f"fitted range: {hint}measure short and long lengths more often, leave out lengths that "
        "will not be served (--where), or try another --form"
    )


def select_unloaded_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows that ran with no company."""
    return rows[rows["running"] == 0.0]


def is_distorted_by_load(quantity: CostQuantity, rows: pd.DataFrame) -> bool:
    """Tell whether the rows alone, without those under load, carry a sound and close fit."""
    quiet = select_unloaded_rows(rows)
    if len(quiet) == len(rows) or _explain_unfittable(RegressionForm.ADDITIVE, quiet):
        return False
    y = quiet[quantity.value].to_numpy(dtype=float)
    try:
        fitted = ols.fit_least_squares(
            design.build_design_matrix(RegressionForm.ADDITIVE, quantity, quiet), y
        )
    except ols.SingularDesignError:
        return False
    cost = CostFunction(quantity, RegressionForm.ADDITIVE, tuple(map(float, fitted.coefficients)))
    lowest = min(
        at.cost
        for at in design.evaluate_corners(
            cost, design.find_observed_ranges(RegressionForm.ADDITIVE, quiet)
        )
    )
    return lowest >= 0.0 and fitted.r2 >= _MIN_UNLOADED_R2


def includes_prompt(rows: pd.DataFrame) -> bool:
    """Tell whether no answer is shorter than its prompt, as where it is counted with it."""
    return bool((rows["tokens_out"] >= rows["tokens_in"]).all())


def _explain_unfittable(form: RegressionForm, rows: pd.DataFrame) -> str | None:
    """Say why a form cannot be fitted to these rows at all."""
    if form.knows_load:
        running = rows["running"]
        blank = int(running.isna().sum())
        if blank:
            return f"running is not known in {blank} rows (--col running=NAME)"
        if running.nunique() < _MIN_DISTINCT_VALUES:
            return (
                f"running never varies ({running.iloc[0]:g} in every row); "
                "measure at several concurrencies"
            )
    need = MIN_ROWS_PER_TERM * form.term_count
    if len(rows) < need:
        return f"too few rows: {len(rows)}, at least {need} needed"
    return None


def _should_replace(simple: FormTrial, rich: FormTrial) -> bool:
    if simple.fitted is None or rich.fitted is None or not (simple.errors and rich.errors):
        return False
    if simple.form.term_count == rich.form.term_count:
        return (rich.is_plausible or not simple.is_plausible) and folds.improves_rmse(
            simple.errors, rich.errors
        )
    added = slice(simple.form.term_count, rich.form.term_count)
    clear = bool(((rich.fitted.low[added] > 0.0) | (rich.fitted.high[added] < 0.0)).any())
    sound = rich.is_plausible or not simple.is_plausible
    return clear and sound and folds.improves_rmse(simple.errors, rich.errors)
