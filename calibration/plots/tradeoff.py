"""Accuracy against energy and against time per request, with the Pareto front."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from calibration.arrays import Floats
from calibration.plots import choices, style
from calibration.plots.picture import Picture, PictureTable, format_length
from calibration.plots.plot_data import PlotData, select_regression
from calibration.stats.design import build_columns
from calibration.stats.intervals import Z_95
from gateway.profile import ModelProfile
from gateway.scheduling.cost import COST_FLOOR, CostQuantity

NAMES = ("tradeoff",)
_NEAR = 0.004
_SIDES = ((CostQuantity.JOULES, "joules", "Energy per request (J)"),
          (CostQuantity.SECONDS, "seconds", "Time per request (s)"))  # fmt: skip


def draw_tradeoff(material: PlotData) -> list[Picture]:
    """Draw one panel per cost and length."""
    lengths = material.lengths
    drawn = style.create_figure(1.2 + 3.1 * len(lengths), 6.4)
    grid = drawn.subplots(len(_SIDES), len(lengths), sharey=True, squeeze=False)
    tables, notes = [], []
    for column, length in enumerate(lengths):
        priced = material.price_request(length)
        fronts, errors = [], []
        beyond = _list_extrapolated(material, length)
        for row, (quantity, key, label) in enumerate(_SIDES):
            axes = grid[row, column]
            x = getattr(priced, key)
            error = [
                _compute_half_interval(material, name, quantity, length) for name in priced.names
            ]
            notes += _draw_panel(material, axes, priced, x, error)
            notes += _describe_floored(priced, quantity, x, length)
            axes.set_xlabel(label)
            if not row:
                more = "\n(outside the fitted range)" if beyond else ""
                axes.set_title(f"{format_length(length)}{more}")
            fronts.append(
                [priced.names[at] for at in choices.find_pareto_front(x, priced.accuracy)]
            )
            errors.append(error)
        tables.append(_build_table(length, priced, fronts, errors))
        if beyond:
            notes.append(f"{format_length(length)} is extrapolation for {', '.join(beyond)}.")
    for row in range(len(_SIDES)):
        grid[row, 0].set_ylabel("Accuracy (% right)")
    names = list(material.profile.models)
    handles = [
        style.build_legend_marker(style.shorten_name(name), material.get_model_style(name))
        for name in names
    ]
    handles += [
        Line2D([], [], color=style.INK, lw=1.2, ls=(0, (4, 2)), label="Pareto front"),
        Line2D([], [], ls="none", marker="o", color=style.MUTED, mfc="none", label="dominated"),
    ]
    if any("(crossed)" in note for note in notes):
        handles.append(
            Line2D([], [], ls="none", marker="x", color=style.INK, label="floored: no real figure")
        )
    style.add_legend(drawn, handles)
    return [
        Picture(
            "tradeoff",
            "Accuracy against energy and time",
            "Left and up is better. Filled markers on the dashed line are the Pareto front: no "
            "other model is both at least as accurate and at least as cheap. Hollow ones are "
            "dominated. Bars are 95% intervals of the mean predicted cost, where the profile has a "
            "covariance; they know nothing of extrapolation.",
            drawn,
            tables,
            list(dict.fromkeys(notes)),
        )
    ]


def _draw_panel(
    material: PlotData,
    axes: Axes,
    priced: choices.PricedModels,
    x: Floats,
    error: list[float | None],
) -> list[str]:
    """Draw one panel; return notes on what it does not show as it is."""
    y = priced.accuracy * 100.0
    reach = np.array([one or 0.0 for one in error])
    # An error bar wider than the range of all models is truncated: it would compress them.
    low, high = float(x.min()), float(x.max())
    room = max(high - low, 0.5 * high)
    left = max(float((x - reach).min()), low - room)
    right = min(float((x + reach).max()), high + room)
    cut = bool(((x - reach) < left).any() or ((x + reach) > right).any())
    if style.needs_log_axis(list(x)):
        style.set_log_axis(axes, "x", float(x.min()) / 1.6, max(right, float(x.max())) * 1.3)
    else:
        room = 0.08 * ((right - left) or right)
        axes.set_xlim(max(0.0, left - room), right + room)
        style.limit_ticks(axes.xaxis, 4)
    room = max(0.2 * float(np.ptp(y)), 0.5)
    axes.set_ylim(y.min() - room, y.max() + room)
    axes.text(
        0.02, 0.98, "↖ better", transform=axes.transAxes, va="top", fontsize=7.5, color=style.MUTED
    )
    front = choices.find_pareto_front(x, priced.accuracy)
    axes.step(x[front], y[front], where="post", color=style.INK, lw=1.2, ls=(0, (4, 2)), zorder=2)
    seen: list[tuple[float, float, list[str]]] = []
    for at, name in enumerate(priced.names):
        group = _find_marker_group(seen, float(x[at]), float(y[at]), axes)
        group[2].append(name)
        look = material.get_model_style(name)
        size = 8.0 + 6.0 * (len(group[2]) - 1)
        hollow = at not in front or len(group[2]) > 1
        half = error[at]
        if half:
            low = min(half, float(x[at]) * 0.999)
            axes.errorbar(
                x[at], y[at], xerr=[[low], [half]], fmt="none", ecolor=look.colour, capsize=2
            )
        axes.plot(
            x[at], y[at], marker=look.marker, color=look.colour, ms=size, ls="none", mew=1.5,
            mfc="none" if hollow else look.colour, zorder=3, clip_on=False,
        )  # fmt: skip
        if x[at] <= COST_FLOOR:
            axes.plot(
                x[at], y[at], marker="x", color=style.INK, ms=size + 3.0, ls="none", mew=1.2,
                zorder=4, clip_on=False,
            )  # fmt: skip
    notes = ["A 95% interval is wider than its panel and is cut off."] if cut else []
    for left, up, names in seen:
        if len(names) > 1:
            text = " = ".join(style.shorten_name(name) for name in names)
            below = up > float(y.mean()) or float(np.ptp(y)) == 0.0
            right = axes.transData.transform((left, up))[0] > axes.bbox.x0 + axes.bbox.width / 2
            offset = (-10 if right else 10, -12 if below else 12)
            axes.annotate(
                f"{text}\n(coincide)", (left, up), xytext=offset, textcoords="offset points",
                va="top" if below else "bottom", ha="right" if right else "left", fontsize=7.5,
                bbox=style.build_label_box(),
            )  # fmt: skip
            notes.append(f"{' and '.join(names)} coincide: their markers lie around one another.")
    return notes


def _describe_floored(
    priced: choices.PricedModels, quantity: CostQuantity, x: Floats, length: tuple[int, int]
) -> list[str]:
    """Return a note on floored predictions: the fit is not valid at that length."""
    names = [name for name, value in zip(priced.names, x, strict=True) if value <= COST_FLOOR]
    if not names:
        return []
    text = (
        f"{format_length(length)}: the predicted {quantity.value} of {', '.join(names)} are below "
    )
    return [f"{text}0 and floored (crossed): these values and a front at them are not valid."]


def _find_marker_group(
    seen: list[tuple[float, float, list[str]]], x: float, y: float, axes: Axes
) -> tuple[float, float, list[str]]:
    """Return the names already drawn at this point, or a new entry."""
    here = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
    for place in seen:
        there = axes.transAxes.inverted().transform(axes.transData.transform(place[:2]))
        if float(np.abs(here - there).max()) < _NEAR:
            return place
    seen.append((x, y, []))
    return seen[-1]


def _compute_half_interval(
    material: PlotData, name: str, quantity: CostQuantity, length: tuple[int, int]
) -> float | None:
    """Return half the 95% interval of a mean predicted cost; None without a covariance."""
    model = material.profile.models[name]
    cost = select_regression(model, quantity)
    if cost.covariance is None:
        return None
    i, o, r = length[0] * model.tokens.ratio, float(length[1]), material.running
    terms = build_columns(cost.form, quantity, np.array(i), np.array(o), np.array(float(r)))
    return Z_95 * float(np.sqrt(max(terms @ np.array(cost.covariance) @ terms, 0.0)))


def _list_extrapolated(material: PlotData, length: tuple[int, int]) -> list[str]:
    """Return the models for which a length is extrapolation."""
    return [
        name for name, model in material.profile.models.items() if is_extrapolated(model, *length)
    ]


def is_extrapolated(model: ModelProfile, tokens_in: float, tokens_out: float) -> bool:
    """Tell whether a length lies outside the fitted range of either cost."""
    given = {"tokens_in": tokens_in * model.tokens.ratio, "tokens_out": tokens_out}
    return any(
        not cost.fitted_range[key][0] <= value <= cost.fitted_range[key][1]
        for cost in (model.seconds, model.joules)
        for key, value in given.items()
        if key in cost.fitted_range
    )


def _build_table(
    length: tuple[int, int],
    priced: choices.PricedModels,
    fronts: Sequence[Sequence[str]],
    errors: Sequence[Sequence[float | None]],
) -> PictureTable:
    def format_cell(value: float, error: float | None) -> str:
        return style.format_number(value) + (f" ± {style.format_number(error)}" if error else "")

    rows = []
    for at, name in enumerate(priced.names):
        on = [what for what, front in zip(("energy", "time"), fronts, strict=True) if name in front]
        rows.append(
            (
                name,
                f"{priced.accuracy[at]:.1%}",
                format_cell(priced.joules[at], errors[0][at]),
                format_cell(priced.seconds[at], errors[1][at]),
                " and ".join(on) or "dominated in both",
                "yes" if priced.floored[at] else "no",
            )
        )
    columns = ("model", "accuracy", "energy (J)", "time (s)", "Pareto front", "floored")
    return PictureTable(format_length(length), columns, rows)
