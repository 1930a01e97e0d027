"""Coefficients with their 95% intervals, from a fit to the rows and from the profile."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from calibration.plots import style
from calibration.plots.picture import Picture, Table
from calibration.plots.plot_data import Material, regression
from calibration.stats.design import terms
from calibration.stats.intervals import Z_95
from gateway.scheduling.cost import Form, Quantity

NAMES = ("coefficients",)
_OFFSET = 0.17
_COLUMNS = ("model", "by", "cost", "term", "value", "95% interval")


@dataclass(frozen=True, slots=True)
class Estimate:
    """One coefficient; `low` and `high` are None where nothing tells them."""

    model: str
    by: str
    term: int
    value: float
    low: float | None
    high: float | None


def draw(material: Material) -> list[Picture]:
    """Draw one panel per cost and term, with a line per model."""
    found = {quantity: estimates(material, quantity) for quantity in Quantity}
    most = 1 + max(one.term for each in found.values() for one in each)
    names = material.names
    drawn = style.figure(2.2 + 2.6 * most, 1.5 + 2 * (0.9 + 0.5 * len(names)))
    grid = drawn.subplots(len(Quantity), most, sharey=True, squeeze=False)
    rows = []
    for row, quantity in enumerate(Quantity):
        for at in range(most):
            axes = grid[row, at]
            here = [one for one in found[quantity] if one.term == at]
            if not here:
                axes.set_axis_off()
                continue
            term = terms(Form.LOAD, quantity)[at]
            _panel(material, axes, here)
            axes.set_title(
                f"{quantity.value}: {term.name}"
                + (f" × {term.factor.replace(' x ', ' × ')}" if at else "")
            )
            axes.set_xlabel(term.unit)
            rows += [_row(one, quantity.value, term.name, term.unit) for one in here]
        grid[row, 0].set_ylim(len(names) - 0.5, -0.5)
        grid[row, 0].set_yticks(range(len(names)), [style.short(name) for name in names])
    handles = [
        Line2D([], [], ls="none", marker="o", color=style.INK, ms=6, label="fit to the rows")
    ] * bool(material.fits)
    handles += [
        Line2D([], [], ls="none", marker="o", color=style.INK, mfc="none", ms=6, label="profile"),
        Line2D([], [], color=style.INK, lw=1, ls="--", label="zero"),
    ]
    style.legend(drawn, handles)
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
            [Table("Coefficients", _COLUMNS, rows)],
            [f"The profile has no covariance for {', '.join(bare)}: no interval."] if bare else [],
        )
    ]


def estimates(material: Material, quantity: Quantity) -> list[Estimate]:
    """Return every coefficient of a cost: from the rows first, then from the profile."""
    found = []
    for name in material.names:
        fitted = material.fitted(name, quantity)
        if fitted is not None:
            own = fitted.fitted
            ends = zip(own.coefficients, own.low, own.high, strict=True)
            found += [
                Estimate(name, "rows", at, float(value), float(low), float(high))
                for at, (value, low, high) in enumerate(ends)
            ]
        if name in material.profile.models:
            cost = regression(material.profile.models[name], quantity)
            reach: Sequence[float | None] = [None] * len(cost.coefficients)
            if cost.covariance is not None:
                reach = [float(one) for one in Z_95 * np.sqrt(np.abs(np.diag(cost.covariance)))]
            found += [
                Estimate(
                    name, "profile", at, value,
                    None if half is None else value - half, None if half is None else value + half,
                )
                for at, (value, half) in enumerate(zip(cost.coefficients, reach, strict=True))
            ]  # fmt: skip
    return found


def _panel(material: Material, axes: Axes, here: list[Estimate]) -> None:
    for one in here:
        look, y = material.look(one.model), float(material.names.index(one.model))
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
    style.few(axes.xaxis, 4)


def _row(one: Estimate, cost: str, name: str, unit: str) -> tuple[str, ...]:
    interval = "-"
    if one.low is not None and one.high is not None:
        interval = f"{one.low:.4g} to {one.high:.4g} {unit}"
    return (one.model, one.by, cost, name, f"{one.value:.4g} {unit}", interval)
