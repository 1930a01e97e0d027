"""Fit what the gateway needs to know of each model from measured rows.

    rows -> (per model) seconds, joules, output line, token ratio, flags -> ModelFit

Nothing is written here; `calibration.fit.merge` makes profile entries of the results.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from calibration.fit import cost as cost_fit
from calibration.fit import warnings as flags
from calibration.fit.cost import CostFit
from calibration.stats import lengths
from calibration.stats.lengths import Line, Ratio
from calibration.tables.columns import BadInput
from calibration.tables.rows import UNTRUSTED_METHODS, Rows, Unusable
from gateway.scheduling.cost import Form, Quantity

FOLDS = 5


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
    unusable: list[Unusable]
    seconds: CostFit
    joules: CostFit | None
    output: Line | str
    ratio: Ratio | str
    flags: list[str]

    @property
    def costs(self) -> list[CostFit]:
        """Seconds and, where measured, joules."""
        return [self.seconds, *([self.joules] if self.joules else [])]


def fit_model(rows: Rows, model: str, *, form: Form | None = None, folds: int = FOLDS) -> ModelFit:
    """Fit one model. Raises BadInput where its rows cannot carry a fit."""
    usable = rows.of(model)
    unusable = rows.unusable(model)
    try:
        seconds = cost_fit.fit(model, Quantity.SECONDS, usable, form=form, folds_=folds)
    except BadInput as error:
        raise BadInput(f"{error}{_lost(unusable)}") from None
    measured = usable[usable["joules"].notna() & ~usable["method"].isin(list(UNTRUSTED_METHODS))]
    joules = None
    found = flags.of_rows(usable)
    if len(measured):
        joules = cost_fit.fit(model, Quantity.JOULES, measured, form=form, folds_=folds)
    if usable["joules"].notna().any():
        found += flags.of_joules(usable, measured)
    found += flags.of_cost(seconds)
    if joules:
        found += flags.of_cost(joules)
    return ModelFit(
        model=model,
        rows=int((rows.frame["model"] == model).sum()),
        usable=usable,
        unusable=unusable,
        seconds=seconds,
        joules=joules,
        output=lengths.line(usable),
        ratio=lengths.ratio(usable),
        flags=found,
    )


def fit_all(
    rows: Rows,
    *,
    form: Form | None = None,
    folds: int = FOLDS,
    on_model: Callable[[str], None] = lambda _: None,
) -> list[ModelFit]:
    """Fit each model of the rows, in their order. Raises BadInput if any of them cannot be."""
    fits = []
    for model in rows.models:
        on_model(model)
        fits.append(fit_model(rows, model, form=form, folds=folds))
    if not fits:
        raise BadInput(f"no usable row{_lost(rows.unusable())}")
    return fits


def pooled_output(rows: Rows) -> Line | str:
    """Fit tokens out on tokens in over the usable rows of all models together."""
    return lengths.line(rows.frame[rows.frame["reason"] == ""])


def _lost(unusable: list[Unusable]) -> str:
    if not unusable:
        return ""
    return "; rows not usable: " + ", ".join(f"{u.count} {u.reason} ({u.first})" for u in unusable)
