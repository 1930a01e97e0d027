"""What a recalibration says on the terminal, in a table per model; its JSON is report.py's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from calibration.recalibrate.lengths import LengthFit
from calibration.recalibrate.refit import CostRefit
from calibration.recalibrate.refit_models import RefitOutcome, RefitPart
from calibration.recalibrate.report import find_live_regression
from calibration.recalibrate.token_scale import RefittedTokenScale
from calibration.stats.design import UNITS, list_terms
from gateway.profile import CostProfile, CostRegression
from gateway.scheduling.cost import CostQuantity

_NOTABLE_PRIOR_SHARE = 0.05


def print_report(
    console: Console,
    outcomes: Sequence[RefitOutcome],
    warnings: Sequence[str],
    live: CostProfile,
    source: Mapping[str, Any],
) -> None:
    """Print the report."""
    _print_line(
        console,
        f"{source['window']} of {source['prometheus']}, to {source['to']}; live profile "
        f"{live.version}",
    )
    for warning in warnings:
        _print_line(console, f"! {warning}")
    for one in outcomes:
        console.print()
        costs = [part for part in one.parts if isinstance(part.found, CostRefit)]
        if costs:
            console.print(_build_table(one, costs, live))
        else:
            console.print(Text(one.key, "bold"))
        for part in one.parts:
            _print_part(console, part)
        verdict = "passed" if one.entry is not None else "not adopted: the live entry stays"
        _print_line(console, f"{one.key}: {verdict}")


def _print_part(console: Console, part: RefitPart) -> None:
    found, block = part.found, part.block
    if isinstance(found, CostRefit):
        for text in _list_remarks(found):
            _print_line(console, f"{part.name}: {text}")
    elif isinstance(found, LengthFit):
        _print_line(
            console,
            f"tokens out: log-normal, mu {found.mu:.3f} +- {found.mu_error:.3f}, sigma "
            f"{found.sigma:.3f}, mean {found.mean:.4g} ({found.n} answers, {found.censored} cut by "
            "a limit)",
        )
    elif isinstance(found, RefittedTokenScale):
        kept = "the live profile's" if found.dense_kept else f"+- {found.dense_half:.4f}"
        _print_line(
            console,
            f"token ratio: {found.ratio:.4f} +- {found.ratio_half:.4f}, per digit or mark "
            f"{found.per_dense_char:.4f} ({kept}; {block.n} prompts)",
        )
    if block.incomplete:
        _print_line(
            console, f"{part.name}: {block.incomplete} scrapes left out, a term was missing"
        )
    for refusal in part.refusals:
        mark = "left as it was" if part.unchanged else "refused"
        _print_line(console, f"! {part.name}: {mark}: {refusal}")


def _list_remarks(found: CostRefit) -> Iterator[str]:
    """Yield what a reader must know of a refit."""
    for text in found.rejected_forms:
        yield f"not {text}"
    if found.kept_load:
        yield "b4 kept from the live profile, at the window's level"
    if found.step != 1.0:
        taken = found.change * found.step
        yield f"{found.change:.3g} times the live prediction; a step of {taken:.3g} times was taken"
    low, high = found.winsorised
    if max(low, high) > _NOTABLE_PRIOR_SHARE:
        yield (
            f"{low:.0%} of the requests cost under a fifth, {high:.0%} over five times the live "
            "prediction, and count as that"
        )
    shares = [float(one) for one in found.solved.prior_share]
    if max(shares) > _NOTABLE_PRIOR_SHARE:
        each = ", ".join(f"{one:.0%}" for one in shares)
        yield f"share of the live profile in each coefficient: {each}"


def _build_table(outcome: RefitOutcome, parts: Sequence[RefitPart], live: CostProfile) -> Table:
    table = Table(
        title=Text(outcome.key, "table.title"), title_justify="left", box=None, pad_edge=False,
        header_style="bold",
    )  # fmt: skip
    table.add_column("", no_wrap=True)
    for part in parts:
        table.add_column(part.name, justify="right", no_wrap=True)
        table.add_column("95% interval", no_wrap=True)
        table.add_column("live", justify="right", no_wrap=True)
    fits = [(part, part.found, find_live_regression(outcome, part, live)) for part in parts]
    most = max(fit.form.term_count for _, fit, _ in fits if isinstance(fit, CostRefit))
    names = ["b0", "b1 per in", "b2 per out", "b3 per in x out", "b4 load"][:most]
    for at, name in enumerate(names):
        row = [name]
        for _, fit, before in fits:
            row += _format_cells(fit, before, at)
        table.add_row(*row)
    for name in ("form", "requests", "scrapes", "blocks", "instances", "restarts", "R2", "RMSE",
                 "condition", "live is off by", "held out", "Chow test"):  # fmt: skip
        row = [name]
        for part, fit, before in fits:
            row += (
                _format_figure(part, fit, before, name)
                if isinstance(fit, CostRefit) and before
                else [""]
            )
        table.add_row(*row)
    return table


def _format_cells(fit: object, before: CostRegression | None, at: int) -> list[str]:
    if not isinstance(fit, CostRefit) or before is None:
        return ["", "", ""]
    was = f"{before.coefficients[at]:.5g}" if at < before.form.term_count else "-"
    if at >= fit.form.term_count:
        return ["-", "", was]
    if at not in fit.used:
        return ["0", "left out", was]
    place = fit.used.index(at)
    unit = list_terms(fit.form, fit.quantity)[at].unit
    interval = (
        f"{fit.step * fit.solved.low[place]:.5g} to {fit.step * fit.solved.high[place]:.5g} {unit}"
    )
    return [f"{fit.coefficients[at]:.5g}", interval, was]


def _format_figure(part: RefitPart, fit: CostRefit, before: CostRegression, name: str) -> list[str]:
    """Return a figure, what stands beside it, and the live profile's in this window."""
    unit, drift = UNITS[CostQuantity(part.name)], fit.drift
    chow = drift.chow
    return {
        "form": [fit.form.value, "", before.form.value],
        "requests": [str(part.block.n), "", ""],
        "scrapes": [str(len(part.block.clusters)), "", ""],
        "blocks": [str(fit.holdout.blocks), f"of {fit.block_seconds / 60.0:.3g} minutes", ""],
        "instances": [str(part.block.instances), "", ""],
        "restarts": [str(part.block.resets), "", ""],
        "R2": [f"{fit.solved.r2:.4f}", "", ""],
        "RMSE": [f"{fit.rmse:.1%}", "", f"{drift.rmse:.1%}"],
        "condition": [f"{fit.solved.condition:.1f}", "", ""],
        "live is off by": [
            f"{drift.relative_bias:+.1%}",
            f"{drift.predicted:.4g} for {drift.observed:.4g} {unit}",
            "",
        ],
        "held out": [
            f"{fit.holdout.gain:.2g}",
            f"+- {fit.holdout.error:.2g}: off by {fit.holdout.live_error:.1%} beyond the noise",
            "",
        ],
        "Chow test": [
            f"F {chow.f:.3g}" if chow else "-",
            f"({chow.k}, {chow.freedom}), p {chow.p:.2g}" if chow else "",
            "",
        ],
    }[name]


def _print_line(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
