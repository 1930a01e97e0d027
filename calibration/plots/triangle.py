"""Which model is chosen, over the triangle of weights, for given lengths."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon

from calibration.arrays import Floats
from calibration.plots import choices, style
from calibration.plots.picture import (
    Picture,
    PictureTable,
    describe_tied_models,
    format_length,
    format_weights,
)
from calibration.plots.plot_data import PlotData
from gateway.scheduling.decision import MetricWeights

NAMES = ("triangle",)
_LABEL_SHARE = 0.04
_SIDE_INCHES = 2.5
_PRESETS = {
    "default": MetricWeights(0.5, 0.3, 0.2),
    "auto:accuracy": MetricWeights(0.8, 0.1, 0.1),
    "auto:energy": MetricWeights(0.1, 0.8, 0.1),
    "auto:time": MetricWeights(0.1, 0.1, 0.8),
    "auto:balanced": MetricWeights(1 / 3, 1 / 3, 1 / 3),
}


def draw_triangle(material: PlotData) -> list[Picture]:
    """Draw one triangle per policy and length."""
    lengths, policies = material.lengths, choices.POLICY_NAMES
    drawn = style.create_figure(1.0 + 3.3 * len(lengths), 7.0)
    grid = drawn.subplots(len(policies), len(lengths), squeeze=False)
    tables, notes = [], []
    chosen: set[str] = set()
    for row, policy in enumerate(policies):
        for column, length in enumerate(lengths):
            priced = material.price_request(length, policy)
            found = choices.find_win_regions(priced)
            _draw_panel(material, grid[row, column], found)
            chosen |= {region.name for region in found}
            grid[row, column].set_title(f"{policy}: {format_length(length)}")
            tables.append(_build_table(policy, length, priced, found))
            notes += describe_tied_models(choices.find_tied_models([priced]))
    handles: list[Patch | Line2D] = [
        style.build_legend_patch(name, material.get_model_style(name), wins=name in chosen)
        for name in material.profile.models
    ]
    handles.append(_build_legend_cross("default and preset weights"))
    style.add_legend(drawn, handles)
    return [
        Picture(
            "triangle",
            "Which model wins over the weights",
            "Each point is a choice of weights: at a corner only that metric counts, in the middle "
            "all three alike; the small numbers count the weight of the nearest corner's metric "
            "along an edge. Crosses are the default weights and the presets. Borders are exact, "
            "since a score is linear in the weights.",
            drawn,
            tables,
            list(dict.fromkeys(notes)),
        )
    ]


def _draw_panel(material: PlotData, axes: Axes, found: list[choices.WinRegion]) -> None:
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-0.16, 1.16)
    axes.set_ylim(-0.14, 0.96)
    for region in found:
        shape = choices.project_to_triangle(region.corners)
        style.fill_hatched(
            lambda shape=shape, **how: axes.add_patch(Polygon(shape, closed=True, **how)),
            material.get_model_style(region.name),
        )
    axes.add_patch(
        Polygon(
            choices.project_to_triangle(np.eye(3)),
            closed=True,
            fill=False,
            edgecolor=style.INK,
            lw=1,
        )
    )
    for at, (text, side) in enumerate((("accuracy", "bottom"), ("energy", "top"), ("time", "top"))):
        x, y = choices.project_to_triangle(np.eye(3)[at])[0]
        gap = 0.02 if side == "bottom" else -0.07
        axes.text(x, y + gap, f"{text} only", ha="center", va=side, fontsize=8.5)
    _draw_ticks(axes)
    for preset in _PRESETS.values():
        x, y = choices.project_to_triangle(np.array([preset.accuracy, preset.energy, preset.time]))[
            0
        ]
        for colour, width, size in ((style.PAPER, 3.2, 7.5), (style.INK, 1.4, 6.5)):
            axes.plot(x, y, marker="x", color=colour, mew=width, ms=size, zorder=5)
    for region in found:
        if region.share > _LABEL_SHARE:
            shape = choices.project_to_triangle(region.corners)
            x, y = _find_label_point(shape)
            if not style.label_fits(
                style.shorten_name(region.name), _measure_label_room(shape, x, y) * _SIDE_INCHES
            ):
                continue
            axes.text(
                x, y, style.shorten_name(region.name), ha="center", va="center", fontsize=8,
                bbox=style.build_label_box(), zorder=6,
            )  # fmt: skip


def _draw_ticks(axes: Axes) -> None:
    """Label the edges at quarters; each edge shows the weight of the metric at its end."""
    for to, away, offset, how in (
        (0, 1, (-0.03, 0.015), "right"),
        (1, 2, (0.0, -0.055), "center"),
        (2, 0, (0.03, 0.015), "left"),
    ):
        for part in (0.25, 0.5, 0.75):
            weights = np.zeros(3)
            weights[to], weights[away] = part, 1.0 - part
            x, y = choices.project_to_triangle(weights)[0]
            axes.plot(x, y, marker="|" if to == 1 else "_", color=style.INK, ms=5, mew=0.8)
            axes.text(
                x + offset[0], y + offset[1], f"{part:g}", ha=how, fontsize=7, color=style.MUTED
            )


def _find_label_point(shape: Floats) -> tuple[float, float]:
    """Return the point in a convex polygon with most space for a name, off edges and crosses."""
    parts = np.linspace(0.0, 1.0, 12)[:, None]
    edges = np.vstack(
        [a + parts * (b - a) for a, b in zip(shape, np.roll(shape, -1, 0), strict=True)]
    )
    marks = [
        choices.project_to_triangle(np.array([w.accuracy, w.energy, w.time]))
        for w in _PRESETS.values()
    ]
    middle = shape.mean(axis=0)
    inside = np.vstack([middle + part * (edges - middle) for part in np.linspace(0.0, 0.9, 10)])
    x, y = inside[style.find_roomiest_point(inside, np.vstack([edges, *marks]))]
    return float(x), float(y)


def _measure_label_room(shape: Floats, x: float, y: float) -> float:
    """Return the width available to a text centred at a point of a convex polygon."""
    found = []
    for (x0, y0), (x1, y1) in zip(shape, np.roll(shape, -1, 0), strict=True):
        if (y0 <= y) != (y1 <= y):
            found.append(float(x0 + (y - y0) / (y1 - y0) * (x1 - x0)))
    return 2.0 * min(max(found) - x, x - min(found)) if found else 0.0


def _build_legend_cross(label: str) -> Line2D:
    return Line2D([], [], ls="none", marker="x", color=style.INK, mew=1.4, ms=6.5, label=label)


def _build_table(
    policy: str,
    length: tuple[int, int],
    priced: choices.PricedModels,
    found: list[choices.WinRegion],
) -> PictureTable:
    share = {region.name: region.share for region in found}
    rows: list[tuple[str, ...]] = [
        (name, f"{share[name]:.1%} of the triangle" if name in share else "nowhere")
        for name in priced.names
    ]
    for label, preset in _PRESETS.items():
        weights = np.array([[preset.accuracy, preset.energy, preset.time]])
        won = priced.names[int(choices.find_winners(priced, weights)[0])]
        rows.append((f"{label} ({format_weights(preset)})", won))
    return PictureTable(f"{policy}: {format_length(length)}", ("model, or weights", "wins"), rows)
