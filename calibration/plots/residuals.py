"""Residuals against the prediction and against the lengths: what a form does not explain."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from calibration.arrays import Floats
from calibration.plots import style
from calibration.plots.picture import Picture, PictureTable, PictureUnavailable
from calibration.plots.plot_data import MeasuredCosts, PlotData
from calibration.plots.predicted import NO_ROWS, compute_bins, format_shown_rows, sample_rows
from calibration.stats.design import UNITS
from gateway.scheduling.cost import CostQuantity

NAMES = ("residuals-seconds", "residuals-joules")


def draw_residuals(material: PlotData) -> list[Picture]:
    """Draw one figure per measured cost. Raises PictureUnavailable without rows."""
    if material.rows is None:
        raise PictureUnavailable(NO_ROWS)
    found = [
        _draw_picture(material, quantity, measured)
        for quantity in CostQuantity
        if (measured := material.collect_measured(quantity))
    ]
    if not found:
        raise PictureUnavailable(
            "no row has a prediction to stand beside: no model could be fitted"
        )
    return found


def _draw_picture(
    material: PlotData, quantity: CostQuantity, measured: list[MeasuredCosts]
) -> Picture:
    unit = UNITS[quantity]
    drawn = style.create_figure(10.4, 0.9 + 2.7 * len(measured))
    grid = drawn.subplots(len(measured), 3, sharey="row", squeeze=False)
    rows = []
    for row, one in enumerate(measured):
        error = one.y - one.predicted
        ends = _compute_axis_limits(error)
        for axes, values, label in zip(
            grid[row],
            (one.predicted, one.tokens_in, one.tokens_out),
            (f"Predicted {quantity.value} ({unit})", "Tokens in", "Tokens out (new tokens)"),
            strict=True,
        ):
            _draw_panel(material, axes, one.model, values, error)
            axes.set_xlabel(label)
        grid[row, 0].set_ylim(*ends)
        style.limit_ticks(grid[row, 0].yaxis)
        grid[row, 0].set_ylabel(f"Measured − predicted ({unit})")
        hidden = int(np.count_nonzero((error < ends[0]) | (error > ends[1])))
        rows.append(_format_residuals(one.model, one.by, error, hidden, unit))
        more = f"; {hidden:,} of all outside" if hidden else ""
        grid[row, 1].set_title(
            f"{style.shorten_name(one.model)} against {one.by} "
            f"({format_shown_rows(len(error))}{more})"
        )
    style.add_legend(
        drawn,
        [
            Line2D([], [], color=style.INK, ls="--", marker="o", ms=4, lw=1, label="median of bin"),
            Patch(facecolor=(style.INK, 0.15), edgecolor=style.INK, lw=0.6, label="middle 80%"),
        ],
    )
    columns = ("model", "predicted by", "rows", "mean", "sd", "p10", "median", "p90", "outside")
    return Picture(
        f"residuals-{quantity.value}",
        f"Residuals of {quantity.value}",
        "Measured less predicted. Medians that wander off zero as the prediction or a length grows "
        "mean that the form lacks a term; a band that widens means that dear requests scatter more "
        "(the intervals allow for that). Panels show the middle 99% of the residuals.",
        drawn,
        [PictureTable(f"Residuals of {quantity.value}, all rows", columns, rows)],
    )


def _draw_panel(material: PlotData, axes: Axes, model: str, x: Floats, error: Floats) -> None:
    if style.needs_log_axis(list(np.quantile(np.maximum(x, 0.0), [0.01, 0.99]))):
        low = max(float(x.min()), float(np.quantile(x, 0.01)) / 2.0)
        style.set_log_axis(axes, "x", low / 1.1, float(x.max()) * 1.1)
    else:
        style.limit_ticks(axes.xaxis)
    picked, look = sample_rows(len(x)), material.get_model_style(model)
    axes.plot(
        x[picked],
        error[picked],
        ls="none",
        marker=look.marker,
        ms=3,
        color=look.colour,
        alpha=0.45,
        mew=0,
        rasterized=True,
    )
    axes.axhline(0.0, color=style.INK, lw=1, zorder=4.5)
    middle, half, low_, high = compute_bins(x, error)
    axes.fill_between(middle, low_, high, facecolor=(style.INK, 0.15), edgecolor=style.INK, lw=0.6)
    axes.plot(middle, half, color=style.PAPER, lw=3, zorder=4)
    axes.plot(middle, half, color=style.INK, ls="--", lw=1, marker="o", ms=4, zorder=5)


def _compute_axis_limits(error: Floats) -> tuple[float, float]:
    low, high = (float(end) for end in np.quantile(error, [0.005, 0.995]))
    room = 0.1 * ((high - low) or 1.0)
    return min(low, 0.0) - room, max(high, 0.0) + room


def _format_residuals(
    model: str, by: str, error: Floats, hidden: int, unit: str
) -> tuple[str, ...]:
    quantiles = (float(q) for q in np.quantile(error, [0.1, 0.5, 0.9]))
    numbers = (
        style.drop_rounding(float(error.mean()), float(error.std())),
        float(error.std()),
        *quantiles,
    )
    texts = (f"{style.format_number(value)} {unit}" for value in numbers)
    return (model, by, f"{len(error):,}", *texts, f"{hidden:,}")
