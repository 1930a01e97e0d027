"""What `joulegate fit` prints: a table per model, remarks, and the reference figures."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from calibration.fit.cost import CostFit, FormTrial
from calibration.fit.model import ModelFit
from calibration.fit.published import ReferenceFigures
from calibration.stats.design import UNITS, list_terms
from calibration.stats.lengths import OutputLengthFit, TokenRatioFit
from calibration.tables.rows import MeasuredRows

_REFERENCE_COLUMNS = ("const", "in_tokens", "out_tokens", "R2")


def print_report(
    console: Console, fits: Sequence[ModelFit], rows: MeasuredRows, pooled: OutputLengthFit | str
) -> None:
    """Print the report."""
    print_rows(console, rows)
    for fit in fits:
        console.print()
        console.print(_build_model_table(fit))
        for cost in fit.cost_fits:
            _print_text(console, _describe_forms(cost))
        _print_text(console, f"tokens out: {_describe_output_length(fit.output)}")
        _print_text(console, f"token ratio: {_describe_ratio(fit.ratio)}")
        for flag in fit.flags:
            console.print("[bold]![/] ", end="")
            _print_text(console, flag)
    if len(fits) > 1:
        console.print()
        _print_text(console, f"tokens out, all models together: {_describe_output_length(pooled)}")


def print_rows(console: Console, rows: MeasuredRows) -> None:
    """Print what was read and what of it could not be used."""
    _print_text(console, f"{sum(one.rows for one in rows.files)} rows in {len(rows.files)} file(s)")
    if rows.left_out:
        _print_text(console, f"{rows.left_out} left out by --where or --model")
    for one in rows.count_unusable():
        _print_text(console, f"{one.count} not used: {one.reason} (first: {one.first})")
    for note in rows.notes:
        _print_text(console, note)


def print_reference(console: Console, found: ReferenceFigures, rows: MeasuredRows) -> None:
    """Print the reference figures."""
    print_rows(console, rows)
    stats = _build_reference_table("normalization_stats", ("model", "column", "figure", "value"))
    for model, columns in found.stats.items():
        for column, figures in columns.items():
            for figure, value in figures.items():
                stats.add_row(*map(Text, (model, column, figure, f"{value:.10g}")))
    summary = _build_reference_table(
        "model_regression_summary", ("model", "cost", *_REFERENCE_COLUMNS)
    )
    for row in found.regressions:
        for cost in ("runtime", "energy"):
            texts = (f"{row[f'{cost}_{name}']:.10g}" for name in _REFERENCE_COLUMNS)
            summary.add_row(Text(row["model"]), cost, *texts)
    for table in (stats, summary):
        console.print()
        console.print(table)
    console.print()
    line = found.output
    _print_text(
        console,
        "tokens out on tokens in, all models together: "
        f"slope {line.slope:.10f}, intercept {line.intercept:.10f}, R2 {line.r2:.4f}, "
        f"{line.n} rows",
    )


def _print_text(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _build_reference_table(title: str, names: Sequence[str]) -> Table:
    table = Table(title=Text(title, "table.title"), title_justify="left", box=None, pad_edge=False)
    for name in names:
        numeric = name in {*_REFERENCE_COLUMNS, "value"}
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    return table


def _build_model_table(fit: ModelFit) -> Table:
    table = Table(
        title=Text(f"{fit.model}: {len(fit.usable)} of {fit.rows} rows", "table.title"),
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("", no_wrap=True)
    for cost in fit.cost_fits:
        table.add_column(f"{cost.quantity.value}", justify="right", no_wrap=True)
        table.add_column("95% interval", justify="left", no_wrap=True)
    most = max(fit.cost_fits, key=lambda cost: cost.form.term_count)
    for at, term in enumerate(list_terms(most.form, most.quantity)):
        cells = [f"{term.name} per {term.factor}" if at else "b0"]
        if at == 4:  # noqa: PLR2004 - the load term differs between seconds and joules
            cells = ["b4 load"]
        for cost in fit.cost_fits:
            cells += _format_coefficient(cost, at)
        table.add_row(*cells)
    for name in ("form", "loss", "rows", "R2", "RMSE", "RMSE out of fold", "median error",
                 "p90 error", "condition", "max leverage"):  # fmt: skip
        cells = [name]
        for cost in fit.cost_fits:
            cells += [_format_statistic(cost, name), ""]
        table.add_row(*cells)
    if fit.joules is None:
        table.caption = "no joules in these rows"
    return table


def _format_coefficient(cost: CostFit, at: int) -> list[str]:
    fitted = cost.fitted
    if at >= len(fitted.coefficients):
        return ["-", ""]
    unit = list_terms(cost.form, cost.quantity)[at].unit
    return [
        f"{fitted.coefficients[at]:.5g}",
        f"{fitted.low[at]:.5g} to {fitted.high[at]:.5g} {unit}",
    ]


def _format_statistic(cost: CostFit, name: str) -> str:
    unit = UNITS[cost.quantity]
    return {
        "form": cost.form.value,
        "loss": cost.loss.value,
        "rows": str(cost.fitted.n),
        "R2": f"{cost.fitted.r2:.4f}",
        "RMSE": f"{cost.fitted.rmse:.4g} {unit}",
        "RMSE out of fold": f"{cost.errors.rmse:.4g} {unit}",
        "median error": f"{cost.errors.median_ape:.1%}",
        "p90 error": f"{cost.errors.p90_ape:.1%}",
        "condition": f"{cost.fitted.condition_number:.1f}",
        "max leverage": f"{cost.fitted.diagnostics.leverage_max:.3f}",
    }[name]


def _describe_forms(cost: CostFit) -> str:
    tried = "; ".join(f"{one.form.value} {_describe_trial(one)}" for one in cost.trials)
    return f"{cost.quantity.value}: {cost.form.value}, {cost.why} ({tried})"


def _describe_trial(one: FormTrial) -> str:
    if one.errors is None:
        return f"not fitted: {one.refused}"
    below = ", below zero in its range" if one.negative_reason else ""
    return f"out-of-fold RMSE {one.errors.rmse:.4g}{below}"


def _describe_output_length(line: OutputLengthFit | str) -> str:
    if isinstance(line, str):
        return f"not fitted: {line}"
    text = (
        f"{line.slope:.10g} x tokens in + {line.intercept:.10g} (slope {line.slope_interval[0]:.4g}"
        f" to {line.slope_interval[1]:.4g}, R2 {line.r2:.4f})"
    )
    return (
        text
        if line.unsuited_reason is None
        else f"{text}; not for the profile: {line.unsuited_reason}"
    )


def _describe_ratio(ratio: TokenRatioFit | str) -> str:
    if isinstance(ratio, str):
        return f"not fitted: {ratio}"
    low, high = ratio.interval
    return f"{ratio.value:.4f} per tiktoken token (95% interval {low:.4f} to {high:.4f})"
