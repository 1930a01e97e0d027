"""Predicted against measured seconds and joules, a dot per request, marked by concurrency."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from calibration.arrays import Floats
from calibration.plots import style
from calibration.plots.concurrency import NOT_TOLD, ConcurrencyClass, split_by_concurrency
from calibration.plots.picture import Picture, PictureTable, PictureUnavailable
from calibration.plots.plot_data import MeasuredCosts, PlotData
from calibration.stats.design import UNITS
from gateway.scheduling.cost import CostQuantity

NAMES = ("predicted",)
MAX_DOTS = 2000
_BINS = 15
_MIN_ROWS_PER_BIN = 8
_LEAST_SHARE = 300
NO_ROWS = "needs measured rows: --rows FILE"


def draw_predicted(material: PlotData) -> list[Picture]:
    """Draw one panel per model and cost. Raises PictureUnavailable without rows."""
    if material.rows is None:
        raise PictureUnavailable(NO_ROWS)
    found = {quantity: material.collect_measured(quantity) for quantity in CostQuantity}
    names = [
        name
        for name in material.model_names
        if any(_find_measured(found[q], name) for q in CostQuantity)
    ]
    if not names:
        raise PictureUnavailable(
            "no row has a prediction to stand beside: no model could be fitted"
        )
    drawn = style.create_figure(8.6, 0.9 + 3.3 * len(names))
    grid = drawn.subplots(len(names), len(CostQuantity), squeeze=False)
    table: list[tuple[str, ...]] = []
    by_company: list[tuple[str, ...]] = []
    classes: dict[str, ConcurrencyClass] = {}
    notes: list[str] = []
    for row, name in enumerate(names):
        for column, quantity in enumerate(CostQuantity):
            axes, one = grid[row, column], _find_measured(found[quantity], name)
            if one is None:
                style.write_panel_message(
                    axes, f"{style.shorten_name(name)}:\nno measured {quantity.value}"
                )
                table.append((name, quantity.value, "-", "0", "-", "-", "-", "-"))
                continue
            notes += _draw_panel(material, axes, one)
            table.append(_format_errors(one))
            split = split_by_concurrency(one.running)
            if len(split) > 1:
                by_company += [_format_class_errors(one, company) for company in split]
                classes |= {company.label: company for company in split}
    handles = [
        Line2D([], [], color=style.INK, lw=1.2, label="as predicted"),
        Line2D([], [], color=style.INK, ls="--", marker="o", ms=4, lw=1, label="median of a bin"),
    ]
    handles += [
        Line2D(
            [], [], ls="none", marker=company.marker, ms=5, color=company.tint(style.MUTED),
            label=label,
        )
        for label, company in sorted(classes.items(), key=lambda item: -item[1].shade)
    ]  # fmt: skip
    style.add_legend(drawn, handles)
    tables = []
    if by_company:
        heads = ("model", "cost", "requests", "rows", "mean error", "median |%|")
        tables.append(PictureTable("Errors by requests at a time", heads, by_company))
    columns = ("model", "cost", "predicted by", "rows", "R2", "RMSE", "mean error", "median |%|")
    return [
        Picture(
            "predicted",
            "Predicted against measured",
            "A good prediction lies on the line; medians off the line are a bias that averages do "
            "not mend. Scatter about the line is what lengths cannot explain. R2 is that of the "
            "predictions shown, and may be below zero where they are worse than the mean. Mean "
            "error is measured less predicted. Marks tell how many requests the server was working "
            "on, where the rows say so: those off the line under company want the load form.",
            drawn,
            [PictureTable("Errors, all rows", columns, table), *tables],
            list(dict.fromkeys(notes)),
        )
    ]


def sample_rows(size: int, most: int = MAX_DOTS) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return the indices of a random sample of at most `most` rows; deterministic."""
    if size <= most:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, most, replace=False))


def format_shown_rows(size: int) -> str:
    """Format how many of the rows are drawn."""
    return f"{size:,} rows" if size <= MAX_DOTS else f"{MAX_DOTS:,} of {size:,} rows shown"


def compute_bins(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the median x, and the median, 10th and 90th percentile of y, of bins of similar x."""
    order = np.argsort(x, kind="stable")
    # A value that an edge falls on (a length of a grid, a limit that most answers reach) has a bin
    # of its own; what lies between two edges has another.
    edges = np.unique(np.quantile(x, np.linspace(0.0, 1.0, _BINS + 1)))
    place = np.searchsorted(edges, x[order], "left") + np.searchsorted(edges, x[order], "right")
    parts = [order[place == number] for number in range(2 * len(edges) + 1)]
    least = max(_MIN_ROWS_PER_BIN, len(x) // _LEAST_SHARE)
    parts = [part for part in parts if len(part) >= least] or [order]
    found = [(np.median(x[p]), *np.quantile(y[p], [0.5, 0.1, 0.9])) for p in parts]
    middle, half, low, high = np.array(found, dtype=float).T
    return middle, half, low, high


def _find_measured(found: list[MeasuredCosts], name: str) -> MeasuredCosts | None:
    return next((one for one in found if one.model == name), None)


def _draw_panel(material: PlotData, axes: Axes, one: MeasuredCosts) -> list[str]:
    unit = UNITS[one.quantity]
    x, y = one.predicted, one.y
    log: bool = (
        style.needs_log_axis([*np.quantile(y, [0.01, 0.99]), x.min()])
        and float(np.quantile(y, 0.001)) > 0.0
    )
    across, up = _compute_axis_limits(x, log=log), _compute_axis_limits(y, log=log)
    if log:
        style.set_log_axis(axes, "x", *across)
        style.set_log_axis(axes, "y", *up)
    else:
        axes.set_xlim(*across)
        axes.set_ylim(*up)
        style.limit_ticks(axes.xaxis)
        style.limit_ticks(axes.yaxis)
    picked, look = sample_rows(len(x)), material.get_model_style(one.model)
    split = split_by_concurrency(one.running)
    for company in split:
        alone = len(split) == 1
        shown = picked[company.rows[picked]]
        axes.plot(
            x[shown], y[shown], ls="none", marker=look.marker if alone else company.marker, ms=3,
            color=look.colour if alone else company.tint(look.colour), alpha=0.55,
            mew=0.8 if company.label == NOT_TOLD and not alone else 0, rasterized=True,
        )  # fmt: skip
    axes.axline((across[0], across[0]), (across[1], across[1]), color=style.INK, lw=1.2, zorder=4.5)
    middle, half, _, _ = compute_bins(x, y)
    axes.plot(middle, half, color=style.PAPER, lw=3, zorder=4)
    axes.plot(middle, half, color=style.INK, ls="--", lw=1, marker="o", ms=4, zorder=5)
    axes.set_title(f"{style.shorten_name(one.model)} ({format_shown_rows(len(x))})")
    axes.set_xlabel(f"Predicted by {one.by} ({unit})")
    axes.set_ylabel(f"Measured {one.quantity.value} ({unit})")
    out = (y < up[0]) | (y > up[1]) | (x < across[0]) | (x > across[1])
    hidden = int(np.count_nonzero(out))
    if not hidden:
        return []
    return [f"{one.model}: {hidden:,} rows of {one.quantity.value} lie outside the panel."]


def _compute_axis_limits(values: Floats, *, log: bool) -> tuple[float, float]:
    """Return an axis's limits: they leave out outliers, which would compress the other rows."""
    low, high = (float(end) for end in np.quantile(values, [0.001, 0.999]))
    if log and low > 0.0:
        return low / 1.2, high * 1.2
    room = 0.05 * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def _format_class_errors(one: MeasuredCosts, company: ConcurrencyClass) -> tuple[str, ...]:
    y, predicted = one.y[company.rows], one.predicted[company.rows]
    return (
        one.model,
        one.quantity.value,
        company.label,
        f"{len(y):,}",
        *_format_bias(y, predicted, UNITS[one.quantity]),
    )


def _format_errors(one: MeasuredCosts) -> tuple[str, ...]:
    unit = UNITS[one.quantity]
    error = one.y - one.predicted
    spread = float(((one.y - one.y.mean()) ** 2).sum())
    r2 = 1.0 - float(error @ error) / spread if spread > 0.0 else float("nan")
    return (
        one.model,
        one.quantity.value,
        one.by,
        f"{len(error):,}",
        style.format_number(r2),
        f"{style.format_number(float(np.sqrt(np.mean(error**2))))} {unit}",
        *_format_bias(one.y, one.predicted, unit),
    )


def _format_bias(y: Floats, predicted: Floats, unit: str) -> tuple[str, str]:
    """Return the mean error, and the median absolute error as a share of what was measured."""
    error = y - predicted
    mean = style.drop_rounding(float(error.mean()), float(error.std()))
    known = y > 0.0
    share = np.abs(error[known]) / y[known]
    median = f"{float(np.median(share)):.1%}" if share.size else "-"
    return f"{style.format_number(mean)} {unit}", median
