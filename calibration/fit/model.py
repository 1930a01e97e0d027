"""Fit what the gateway needs to know of each model from measured rows.

    rows -> (per model) seconds, joules, output line, token ratio, flags -> ModelFit

Nothing is written here; `calibration.fit.merge` makes profile entries of the results.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from calibration.fit import cost as cost_fit
from calibration.fit import warnings as flags
from calibration.fit.cost import CostFit, Loss
from calibration.stats import lengths
from calibration.stats.lengths import OutputLengthFit, TokenRatioFit
from calibration.tables.columns import BadInput
from calibration.tables.rows import UNTRUSTED_METHODS, MeasuredRows, UnusableRows
from gateway.scheduling.cost import CostQuantity, RegressionForm

DEFAULT_FOLDS = 5


@dataclass(frozen=True, slots=True)
class ModelFit:
    """Everything fitted for one model.

    `joules` is None where none were measured; `output` and `ratio` say in words why they are not
    there; `flags` are what a reader must know before using it.
    """

    model: str
    rows: int
    """Rows of the model, unusable ones included."""
    usable: pd.DataFrame
    unusable: list[UnusableRows]
    seconds: CostFit
    joules: CostFit | None
    output: OutputLengthFit | str
    ratio: TokenRatioFit | str
    flags: list[str]

    @property
    def cost_fits(self) -> list[CostFit]:
        """Seconds and, where measured, joules."""
        return [self.seconds, *([self.joules] if self.joules else [])]


def fit_model(
    rows: MeasuredRows,
    model: str,
    *,
    form: RegressionForm | None = None,
    folds: int = DEFAULT_FOLDS,
    loss: Loss | None = None,
) -> ModelFit:
    """Fit one model. Raises BadInput where its rows cannot carry a fit.

    `loss` None is relative for rows of `joulegate profile`, which says of each its cell.
    """
    usable = rows.select_usable(model)
    unusable = rows.count_unusable(model)
    if loss is None:
        loss = Loss.RELATIVE if _profiled(usable) else Loss.ABSOLUTE
    try:
        seconds = cost_fit.fit_cost(
            model, CostQuantity.SECONDS, usable, form=form, folds_=folds, loss=loss
        )
    except BadInput as error:
        raise BadInput(f"{error}{_describe_unusable_rows(unusable)}") from None
    measured = usable[usable["joules"].notna() & ~usable["method"].isin(list(UNTRUSTED_METHODS))]
    joules = None
    found = flags.check_rows(usable)
    if len(measured):
        joules = cost_fit.fit_cost(
            model, CostQuantity.JOULES, measured, form=form, folds_=folds, loss=loss
        )
    if usable["joules"].notna().any():
        found += flags.check_joules(usable, measured)
    found += flags.check_cost_fit(seconds)
    if joules:
        found += flags.check_cost_fit(joules)
    return ModelFit(
        model=model,
        rows=int((rows.frame["model"] == model).sum()),
        usable=usable,
        unusable=unusable,
        seconds=seconds,
        joules=joules,
        output=lengths.fit_output_length(usable),
        ratio=lengths.fit_token_ratio(usable),
        flags=found,
    )


def fit_all(
    rows: MeasuredRows,
    *,
    form: RegressionForm | None = None,
    folds: int = DEFAULT_FOLDS,
    loss: Loss | None = None,
    on_model: Callable[[str], None] = lambda _: None,
) -> list[ModelFit]:
    """Fit each model of the rows, in their order. Raises BadInput if any of them cannot be."""
    fits = []
    for model in rows.model_names:
        on_model(model)
        fits.append(fit_model(rows, model, form=form, folds=folds, loss=loss))
    if not fits:
        raise BadInput(f"no usable row{_describe_unusable_rows(rows.count_unusable())}")
    return fits


def fit_pooled_output(rows: MeasuredRows) -> OutputLengthFit | str:
    """Fit tokens out on tokens in over the usable rows of all models together."""
    return lengths.fit_output_length(rows.frame[rows.frame["reason"] == ""])


def _profiled(rows: pd.DataFrame) -> bool:
    """Tell whether these are rows of `joulegate profile`."""
    return "cell" in rows and len(rows) > 0 and bool((rows["cell"] != "").all())


def _describe_unusable_rows(unusable: list[UnusableRows]) -> str:
    if not unusable:
        return ""
    return "; rows not usable: " + ", ".join(f"{u.count} {u.reason} ({u.first})" for u in unusable)
