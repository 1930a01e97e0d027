"""Warnings about a fit, each with what to do."""

import numpy as np
import pandas as pd

from calibration.fit.cost import CostFit, includes_prompt, is_distorted_by_load
from calibration.stats import ols
from calibration.stats.design import UNITS, list_terms
from calibration.tables.rows import UNTRUSTED_METHODS

_MIN_LENGTH_RATIO = 4.0
_MIN_R2 = 0.5
_MAX_CONDITION_NUMBER = 30.0
_MAX_LEVERAGE = 0.5
_MAX_BIAS_SHARE = 0.1
_ADVISED_ROWS_PER_TERM = 10
_MAX_OUTLIER_SHARE = 0.001


def check_rows(rows: pd.DataFrame) -> list[str]:
    """Look at one model's usable rows before any fit."""
    found = []
    for name, what in (("tokens_in", "prompt"), ("tokens_out", "answer")):
        low, high = (float(rows[name].quantile(q)) for q in (0.05, 0.95))
        if (high + 1.0) < _MIN_LENGTH_RATIO * (low + 1.0):
            found.append(
                f"{what} length hardly varies (90% of rows have {low:g} to {high:g} {name}): what "
                f"a token costs is poorly known and any other length is extrapolation; measure a "
                "grid of lengths (joulegate profile)"
            )
    for name in ("hardware", "engine"):
        kinds = sorted(text for text in rows[name].unique() if text)
        if len(kinds) > 1:
            found.append(
                f"rows of {len(kinds)} kinds of {name} in one fit ({', '.join(kinds)}); "
                f"fit them apart with --where {name}=…"
            )
    cached = float(rows["cached_tokens"].sum() / rows["tokens_in"].sum())
    if cached > 0.01:  # noqa: PLR2004 - a percent
        found.append(
            f"{cached:.0%} of the prompt tokens came from the prefix cache: what a fresh prompt "
            "costs is underestimated; measure with unique prompts"
        )
    return found


def check_joules(rows: pd.DataFrame, used: pd.DataFrame) -> list[str]:
    """Look at which of the rows had joules that may feed a fit."""
    found = []
    untrusted = int(rows["method"].isin(list(UNTRUSTED_METHODS)).sum())
    if untrusted:
        found.append(
            f"joules of {untrusted} rows are coarse or estimated and were not used for joules; "
            "measure them with the counter (exclusive or apportioned)"
        )
    blank = len(rows) - len(used) - untrusted
    if blank > 0:
        found.append(f"joules are missing in {blank} of {len(rows)} rows, used for seconds only")
    zero = int((used["joules"] == 0).sum())
    if zero:
        found.append(
            f"{zero} rows have 0 joules: the counter was too slow for such short requests; "
            "they were kept, and left out of the percentage errors"
        )
    return found


def check_cost_fit(fit: CostFit) -> list[str]:
    """Look at one fitted cost."""
    name, fitted, unit = fit.quantity.value, fit.fitted, UNITS[fit.quantity]
    found = []
    if fit.negative_reason is not None:
        found.append(f"{name}: no profile can be written of this fit: it {fit.negative_reason}")
    if fitted.n < _ADVISED_ROWS_PER_TERM * fit.form.term_count:
        found.append(
            f"{name}: only {fitted.n} rows for {fit.form.term_count} coefficients; measure more"
        )
    if fitted.r2 < _MIN_R2:
        found.append(
            f"{name}: R2 is {fitted.r2:.3f}: lengths explain little of the cost of one request; "
            "trust means over many requests only"
        )
    found += _check_signs(fit, name, unit)
    if fitted.condition_number > _MAX_CONDITION_NUMBER:
        found.append(
            f"{name}: condition number {fitted.condition_number:.0f} "
            f"(over {_MAX_CONDITION_NUMBER:g}): terms are hard to tell apart; "
            "vary tokens in and out independently"
        )
    found += _check_outliers(fit, name)
    found += _check_lack_of_fit(fit, name)
    found += _check_load_distortion(fit, name)
    running = fit.rows["running"]
    if not fit.form.knows_load and running.min() < running.max():
        found.append(
            f"{name}: rows at {running.min():g} to {running.max():g} running requests, fitted by "
            f"a form ({fit.form.value}) that does not know load: it holds for that mix only"
        )
    return found


def _check_load_distortion(fit: CostFit, name: str) -> list[str]:
    """Say where rows under load make the fit wrong for a request that is alone."""
    y = fit.rows[fit.quantity.value].to_numpy(dtype=float)
    quiet = (fit.rows["running"] == 0.0).to_numpy(dtype=bool) & (y > 0.0)
    if not quiet.any() or not is_distorted_by_load(fit.quantity, fit.rows):
        return []
    off = float(np.median(np.abs(fit.fitted.residuals[quiet]) / y[quiet]))
    if off <= _MAX_BIAS_SHARE:
        return []
    text = (
        f"{name}: half the requests that ran alone are off by over {off:.0%}, although those rows "
        "by themselves fit well: the rows under load bend it (prompts waiting in line, which no "
        "form knows); fit those alone (--where concurrency=1), or measure load with short prompts"
    )
    return [text]


def _check_signs(fit: CostFit, name: str, unit: str) -> list[str]:
    found = []
    for side, slopes in (
        ("in", {str(at): at.per_token_in for at in fit.corners}),
        ("out", {str(at): at.per_token_out for at in fit.corners}),
    ):
        where, lowest = min(slopes.items(), key=lambda item: item[1])
        if lowest < 0.0:
            hint = (
                "if tokens_out counts the prompt too, say --output-includes-prompt"
                if side == "in" and includes_prompt(fit.rows)
                else "measure more lengths, or use a simpler --form"
            )
            found.append(
                f"{name}: a token {side} costs less than nothing ({lowest:.3g} {unit} at {where}); "
                + hint
            )
    for at, term in enumerate(list_terms(fit.form, fit.quantity)):
        if term.name in {"b1", "b2"} and fit.fitted.low[at] <= 0.0 <= fit.fitted.high[at]:
            found.append(
                f"{name}: {term.name} (per token {term.factor}) could be zero; "
                f"vary tokens {term.factor} more, or measure more rows"
            )
    return found


def _check_outliers(fit: CostFit, name: str) -> list[str]:
    odd, n = fit.fitted.diagnostics, fit.fitted.n
    found = []
    if odd.outlier_rows > _MAX_OUTLIER_SHARE * n:
        found.append(
            f"{name}: {odd.outlier_rows} rows are over 6 sd off, among rows of like cost (worst "
            f"{odd.worst_sd:.1f}: {_describe_row(fit, odd.worst_row)}); "
            "look for interference during the run"
        )
    if odd.leverage_max > _MAX_LEVERAGE:
        found.append(
            f"{name}: one row decides the fit where it is (leverage {odd.leverage_max:.2f}: "
            f"{_describe_row(fit, odd.highest_leverage_row)}); repeat that measurement"
        )
    if odd.cook_max > 1.0:
        found.append(
            f"{name}: one row moves all coefficients (Cook's distance {odd.cook_max:.1f}); "
            "repeat that measurement"
        )
    return found


def _describe_row(fit: CostFit, place: int) -> str:
    row = fit.rows.iloc[place]
    return f"{row['tokens_in']:g} in, {row['tokens_out']:g} out, {row[fit.quantity.value]:g}"


def _check_lack_of_fit(fit: CostFit, name: str) -> list[str]:
    y = fit.rows[fit.quantity.value].to_numpy(dtype=float)
    off = ols.compute_binned_bias(y - fit.fitted.residuals, y)
    worst = max(off, key=abs)
    if abs(worst) <= _MAX_BIAS_SHARE:
        return []
    part = ("cheapest", "second", "middle", "fourth", "dearest")[off.index(worst)]
    text = (
        f"{name}: the {part} fifth of requests cost {abs(worst):.0%} "
        f"{'more' if worst > 0.0 else 'less'} than this fit says: it lacks a term; try --form "
        "best, or narrow the range (--where)"
    )
    return [text]
