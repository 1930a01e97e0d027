"""Coefficients with their 95% intervals, from a fit to the rows and from the profile."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from calibration.plots import style
from calibration.plots.picture import Picture, PictureTable
from calibration.plots.plot_data import PlotData, select_regression
from calibration.stats.design import RegressionTerm, list_terms
from calibration.stats.intervals import Z_95
from gateway.scheduling.cost import CostQuantity, RegressionForm

NAMES = ("coefficients",)
_OFFSET = 0.17
_COLUMNS = ("model", "by", "cost", "term", "value", "95% interval")


@dataclass(frozen=True, slots=True)
class CoefficientEstimate:
    """One coefficient; `low` and `high` are None where its interval is unknown."""

    model: str
    by: str
    term: RegressionTerm
    value: float
    low: float | None
    high: float | None


def draw_coefficients(material: PlotData) -> list[Picture]:
    """Draw one panel per cost and term, with a line per model.

    Terms of one name that multiply different things, by the models' forms, have a panel each.
    """
    found = {quantity: collect_estimates(material, quantity) for quantity in CostQuantity}
    terms = {
        quantity: sorted({one.term for one in each}, key=lambda term: (term.name, term.factor))
        for quantity, each in found.items()
    }
    most = max(len(each) for each in terms.values())
    names = material.model_names
    drawn = style.create_figure(2.2 + 2.6 * most, 1.5 + 2 * (0.9 + 0.5 * len(names)))
    grid = drawn.subplots(len(CostQuantity), most, sharey=True, squeeze=False)
    rows = []
    for row, quantity in enumerate(CostQuantity):
        for at in range(most):
            axes = grid[row, at]
            if at >= len(terms[quantity]):
                axes.set_axis_off()
                continue
            term = terms[quantity][at]
            here = [one for one in found[quantity] if one.term == term]
            _draw_panel(material, axes, here)
            axes.set_title(
                f"{quantity.value}: {term.name}"
                + (f" × {term.factor.replace(' x ', ' × ')}" if term.factor != "1" else "")
            )
            axes.set_xlabel(term.unit)
            rows += [_format_row(one, quantity.value, term.name, term.unit) for one in here]
        grid[row, 0].set_ylim(len(names) - 0.5, -0.5)
        grid[row, 0].set_yticks(range(len(names)), [style.shorten_name(name) for name in names])
    handles = [
        Line2D([], [], ls="none", marker="o", color=style.INK, ms=6, label="fit to the rows")
    ] * bool(material.fits)
    handles += [
        Line2D([], [], ls="none", marker="o", color=style.INK, mfc="none", ms=6, label="profile"),
        Line2D([], [], color=style.INK, lw=1, ls="--", label="zero"),
    ]
    style.add_legend(drawn, handles)
    bare = sorted({one.model for each in found.values() for one in each if one.low is None})
    return [
        Picture(
            "coefficients",
            "Coefficients and their 95% intervals",
            "Filled: a fit to the rows, with robust (HC3) intervals. Hollow: what the profile "
            "says, with intervals from its covariance. A slope whose interval holds zero was not "
            "measured well enough to be told from nothing. Intervals know of noise, not of other "
            "hardware, lengths or load.",
            drawn,
            [PictureTable("Coefficients", _COLUMNS, rows)],
            [f"The profile has no covariance for {', '.join(bare)}: no interval."] if bare else [],
        )
    ]


def collect_estimates(material: PlotData, quantity: CostQuantity) -> list[CoefficientEstimate]:
    """Return every coefficient of a cost: from the rows first, then from the profile."""
    found = []
    for name in material.model_names:
        fitted = material.find_fit(name, quantity)
        if fitted is not None:
            own = fitted.fitted
            terms = list_terms(fitted.form, quantity)
            found += [
                CoefficientEstimate(name, "rows", term, float(value), float(low), float(high))
                for term, value, low, high in zip(
                    terms, own.coefficients, own.low, own.high, strict=True
                )
            ]
        if name in material.profile.models:
            cost = select_regression(material.profile.models[name], quantity)
            reach: Sequence[float | None] = [None] * len(cost.coefficients)
            if cost.covariance is not None:
                reach = [float(one) for one in Z_95 * np.sqrt(np.abs(np.diag(cost.covariance)))]
            found += [
                CoefficientEstimate(
                    name, "profile", term, value,
                    None if half is None else value - half, None if half is None else value + half,
                )
                for term, value, half in zip(
                    list_terms(RegressionForm(cost.form), quantity),
                    cost.coefficients,
                    reach,
                    strict=True,
                )
            ]  # fmt: skip
    return found


def _draw_panel(material: PlotData, axes: Axes, here: list[CoefficientEstimate]) -> None:
    for one in here:
        look, y = material.get_model_style(one.model), float(material.model_names.index(one.model))
        both = {other.by for other in here if other.model == one.model}
        if len(both) > 1:
            y += -_OFFSET if one.by == "rows" else _OFFSET
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [y, y], color=look.colour, lw=1.8, marker="|", ms=7)
        axes.plot(
            one.value, y, marker=look.marker, color=look.colour, ms=6, mew=1.4,
            mfc=look.colour if one.by == "rows" else style.PAPER,
        )  # fmt: skip
    axes.axvline(0.0, color=style.INK, lw=1, ls="--", zorder=1)
    axes.grid(visible=False, axis="y")
    style.limit_ticks(axes.xaxis, 4)


def _format_row(one: CoefficientEstimate, cost: str, name: str, unit: str) -> tuple[str, ...]:
    interval = "-"
    if one.low is not None and one.high is not None:
        interval = f"{one.low:.4g} to {one.high:.4g} {unit}"
    return (one.model, one.by, cost, name, f"{one.value:.4g} {unit}", interval)
