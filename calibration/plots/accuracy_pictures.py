"""Accuracy by prompt: whether predictions hold, and what routing by them is worth."""

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from calibration.plots import style
from calibration.plots.accuracy_report import AccuracyReport, ReportedRouting
from calibration.plots.picture import Picture, PictureTable, PictureUnavailable
from calibration.plots.plot_data import PlotData

NAMES = ("reliability", "quality-cost")
_NO_REPORT = "no --accuracy: the file that joulegate accuracy train --report wrote"
_MOST_PANELS = 6
_COLUMNS = 3
_ROUTERS = (
    ("trained", "the trained heads", "-", 0),
    ("task_table", "the task table (tasks known)", "--", 1),
    ("oracle", "the oracle", ":", 2),
)


def draw_accuracy(material: PlotData) -> list[Picture]:
    """Draw both. Raises PictureUnavailable without a report."""
    if material.accuracy is None:
        raise PictureUnavailable(_NO_REPORT)
    found = [_draw_reliability(material.accuracy)]
    if material.accuracy.routing:
        found.append(_draw_curves(material.accuracy))
    return found


def _draw_reliability(report: AccuracyReport) -> Picture:
    drawn = style.create_figure(5.2, 5.0)
    axes = drawn.subplots()
    axes.plot([0, 1], [0, 1], color=style.MUTED, ls="--", lw=1)
    most = max(one.n for model in report.models.values() for one in model.reliability)
    handles, rows = [], []
    for number, (name, model) in enumerate(report.models.items()):
        look = style.get_model_style(number)
        bins = model.reliability
        x, y = [one.predicted for one in bins], [one.observed for one in bins]
        axes.plot(x, y, color=look.colour, lw=1)
        sizes = [8.0 + 90.0 * one.n / most for one in bins]
        axes.scatter(x, y, sizes, color=look.colour, marker=look.marker, alpha=0.8, zorder=3)
        handles.append(style.build_legend_marker(name, look))
        rows.append((name, f"{model.n:,}", f"{model.ece:.4f}"))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("Predicted share of right answers")
    axes.set_ylabel("Observed share")
    style.add_legend(drawn, handles)
    return Picture(
        "reliability",
        "Reliability of predicted accuracy",
        "A mark per tenth of the predictions, on rows that training had not seen; larger ones hold "
        "more rows. On the dashed line, of the prompts predicted at 70% seven in ten are answered "
        "rightly. Below it: the model is trusted too much.",
        drawn,
        [PictureTable("Expected calibration error", ("model", "rows", "ECE"), rows)],
    )


def _draw_curves(report: AccuracyReport) -> Picture:
    groups = list(report.routing.items())[:_MOST_PANELS]
    wide = min(_COLUMNS, len(groups))
    high = -(-len(groups) // wide)
    drawn = style.create_figure(1.0 + 3.4 * wide, 0.9 + 3.2 * high)
    grid = drawn.subplots(high, wide, squeeze=False)
    for axes in grid.flat[len(groups) :]:
        axes.set_axis_off()
    rows = []
    for axes, (name, one) in zip(grid.flat, groups, strict=False):
        _draw_panel(axes, one)
        axes.set_title(f"{style.shorten_name(name)} ({one.n:,} prompts)")
        rows.append(_format_areas(name, one))
    handles = [
        Line2D([], [], color=style.get_model_style(number).colour, ls=line, lw=1.6, label=text)
        for _, text, line, number in _ROUTERS
    ]
    handles.append(Line2D([], [], color=style.MUTED, ls="-.", lw=1, label="random, shuffled"))
    handles.append(
        Line2D([], [], color=style.INK, ls="none", marker="o", ms=5, label="always one model")
    )
    style.add_legend(drawn, handles)
    left_out = list(report.routing)[_MOST_PANELS:]
    columns = ("tasks", "prompts", "trained", "task table", "shuffled (mean of 20)", "oracle")
    return Picture(
        "quality-cost",
        "Quality against cost",
        "The share of right answers when more and more prompts, those where it is predicted to "
        "help most first, go to the dearer model; its cost alone is 1. Higher at the same cost "
        "is better. Random mixing lies on the straight line, and so do the same predictions dealt "
        "to other prompts (shuffled): what is above it was told by the prompt. Held-out rows.",
        drawn,
        [PictureTable("APGR (random: 0.5)", columns, rows)],
        [f"not drawn, for want of room: {', '.join(left_out)}"] if left_out else [],
    )


def _draw_panel(axes: Axes, one: ReportedRouting) -> None:
    for field, _, line, number in _ROUTERS:
        curve = getattr(one, field)
        if curve is not None and curve.curve:
            x, y = zip(*curve.curve, strict=True)
            axes.plot(x, y, color=style.get_model_style(number).colour, ls=line, lw=1.6)
    low = min((cost for cost, _ in one.trained.curve), default=0.0)
    ends = ([low, 1.0], [one.always_cheapest, one.always_most_accurate])
    axes.plot(*ends, color=style.MUTED, ls="-.", lw=1)
    axes.plot(*ends, color=style.INK, ls="none", marker="o", ms=5, zorder=4)
    style.limit_ticks(axes.xaxis)
    style.limit_ticks(axes.yaxis)
    axes.set_xlabel("Cost, of always the dearest's")
    axes.set_ylabel("Share of right answers")


def _format_areas(name: str, one: ReportedRouting) -> tuple[str, ...]:
    found = (one.trained, one.task_table, one.shuffled_mean_of_20, one.oracle)
    return (name, f"{one.n:,}", *("" if area is None else f"{area.apgr:.3f}" for area in found))
