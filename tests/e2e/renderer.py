"""Draws a dashboard's JSON as a picture from the answers to its queries, roughly as Grafana would.

Enough to see what is empty, crowded or wrongly scaled: lines, stacks, numbers, states and tables.
Grafana itself is not to be had for tests; its JSON is also held against its own types.
"""

import itertools
import json
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

Series = tuple[dict[str, str], list[tuple[float, float]]]
Ask = Callable[[str], list[Series]]

COLOURS = (
    "#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#b877d9", "#f2495c", "#8ab8ff", "#37872d",
    "#fade2a", "#c4162a", "#8f3bb8", "#96d98d",
)  # fmt: skip
THRESHOLDS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}
BACK, PLATE, INK, DIM = "#111217", "#181b1f", "#d8d9da", "#8e8e8e"
_UNITS = {
    "s": "s", "joule": "J", "watt": "W", "massg": "g", "ops": "/s", "reqps": "/s", "kwatth": "Wh",
}  # fmt: skip
Answered = list[tuple[str, str, dict[str, str], np.ndarray]]
"""(Query's letter, legend, labels, times and values as two rows) of every series."""
_COLUMNS, _INCHES_WIDE, _INCHES_HIGH = 24, 20.0, 0.36
_MILLE = 1000


def substituted(expr: str, *, interval: str, span: str) -> str:
    """Return a panel's expression as Grafana would send it, with all variables on All."""
    expr = expr.replace("$__rate_interval", interval).replace("$__range", span)
    return re.sub(r"\$(cluster|namespace|release|model)\b", ".*", expr)


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def table_labels(panel: dict[str, Any]) -> set[str]:
    """Return the labels that make a table's rows (and columns); none for another panel."""
    found = set()
    for one in (each["options"] for each in panel.get("transformations", ())):
        if "rowField" in one:
            found |= {one["rowField"], one["columnField"]}
        elif "indexByName" in one:
            found.add(min(one["indexByName"], key=one["indexByName"].__getitem__))
    return found


def draw(path: Path, ask: Ask, out: Path) -> None:
    """Draw the dashboard at `path` into the PNG `out`; `ask` answers an expression over time."""
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    rows = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in dashboard["panels"])
    figure = Figure(figsize=(_INCHES_WIDE, rows * _INCHES_HIGH), facecolor=BACK)
    FigureCanvasAgg(figure)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        left, top = place["x"] / _COLUMNS, 1 - place["y"] / rows
        if panel["type"] == "row":
            figure.text(0.006, top - 0.7 / rows, panel["title"], color=INK, size=12, weight="bold")
            continue
        wide, high = place["w"] / _COLUMNS, place["h"] / rows
        number = panel["type"] in {"stat", "table"}
        foot = 0.25 if number else 2.1
        margin = 0.004 if number else 0.032
        if panel["type"] == "state-timeline":
            margin = 0.12
        axes = figure.add_axes(
            (
                left + margin,
                top - high + foot / rows,
                wide - margin - 0.008,
                high - (foot + 1.1) / rows,
            ),
            facecolor=PLATE,
        )
        axes.set_title(panel["title"], color=INK, size=9, loc="left", pad=4)
        _KINDS[panel["type"]](axes, panel, _answered(panel, ask))
    figure.savefig(out, dpi=72, facecolor=BACK)


def _answered(panel: dict[str, Any], ask: Ask) -> Answered:
    found = []
    for target in panel["targets"]:
        for labels, samples in ask(target["expr"]):
            legend = target["legendFormat"]
            for label in re.findall(r"{{(\w+)}}", legend):
                legend = legend.replace(f"{{{{{label}}}}}", labels.get(label, ""))
            legend = "" if legend == "__auto" else legend.strip()
            found.append((target["refId"], legend, labels, np.array(samples).T))
    return found


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value in its unit, with a prefix for large and small ones."""
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{100 * value:.{1 if decimals is None else decimals}f}%"
    if unit == "locale":
        return f"{value:,.{decimals or 0}f}"
    suffix = _UNITS.get(unit, "")
    value *= _MILLE if unit.startswith("k") else 1
    thousands = math.floor(math.log10(abs(value)) / 3) if value else 0
    thousands = min(max(thousands, -2 if suffix in {"s", "g", "Wh"} else 0), 3)
    thousands = 0 if unit == "none" else thousands
    value /= _MILLE**thousands
    text = f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"
    return f"{text} {('', 'k', 'M', 'G', 'µ', 'm')[thousands]}{suffix}".strip()


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "No data", color="#f2495c", ha="center", transform=axes.transAxes)


def _plain(axes: Axes) -> None:
    axes.tick_params(colors=DIM, labelsize=7, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _lines(axes: Axes, panel: dict[str, Any], found: Answered) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    unit, decimals = defaults["unit"], defaults.get("decimals")
    dotted = {
        one["matcher"]["options"]
        for one in panel["fieldConfig"]["overrides"]
        if any(each["id"] == "custom.lineStyle" for each in one["properties"])
    }
    _plain(axes)
    axes.grid(color="#2c3235", linewidth=0.5)
    drawn = [one for one in found if np.isfinite(one[3][1]).any()]
    if not drawn:
        _nothing(axes)
        return
    stacking = defaults["custom"].get("stacking", {}).get("mode")
    if stacking:
        _stack(axes, drawn)
    colours: dict[str, str] = {}
    for letter, legend, _, (times, values) in drawn if not stacking else []:
        # Grafana's palette by name: what has one name has one colour.
        colour = colours.setdefault(legend, COLOURS[len(colours) % len(COLOURS)])
        style = ":" if letter in dotted else "-"
        label = "_" if letter in dotted else legend or "value"
        axes.plot(times, values, color=colour, linestyle=style, linewidth=1.3, label=label)
    for step in defaults["thresholds"]["steps"][1:]:
        _, top = axes.get_ylim()
        if step["value"] <= 2 * top:
            axes.axhline(step["value"], color=THRESHOLDS[step["color"]], dashes=(6, 4), lw=0.8)
    if "min" in defaults:
        axes.set_ylim(bottom=defaults["min"])
    if "max" in defaults:
        axes.set_ylim(top=defaults["max"])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit, decimals)))
    _, labels = axes.get_legend_handles_labels()
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.08, -0.1),
        ncols=4 if max(map(len, labels)) < 22 else 2,
        fontsize=6.5,
        labelcolor=INK,
        frameon=False,
        columnspacing=1,
        handlelength=1,
    )
    first = min(one[3][0][0] for one in drawn)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at - first:.0f} s"))


def _stack(axes: Axes, found: Answered) -> None:
    times = sorted(set(itertools.chain.from_iterable(one[3][0] for one in found)))
    table = []
    for *_, (at, values) in found:
        known = dict(zip(at, values, strict=True))
        table.append([known.get(time, 0.0) for time in times])
    heights = np.nan_to_num(np.array(table))
    labels = [one[1] or "value" for one in found]
    colours = itertools.islice(itertools.cycle(COLOURS), len(labels))
    axes.stackplot(times, heights, labels=labels, colors=list(colours), alpha=0.7, linewidth=0.5)


def _number(axes: Axes, panel: dict[str, Any], found: Answered) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    axes.set_axis_off()
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, color=PLATE, zorder=0))
    if not found:
        _nothing(axes)
        return
    for place, (_, legend, _, (_, values)) in enumerate(found):
        finite = values[np.isfinite(values)]
        last = float(finite[-1]) if finite.size else math.nan
        colour = "#73bf69"
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is None or last >= step["value"]:
                colour = THRESHOLDS[step["color"]]
        text = shown(last, defaults["unit"], defaults.get("decimals"))
        x, across = (place + 0.5) / len(found), axes.transAxes
        axes.text(x, 0.4, text, color=colour, size=20, weight="bold", ha="center", transform=across)
        axes.text(x, 0.2, legend, color=INK, size=8, ha="center", transform=across)


def _states(axes: Axes, panel: dict[str, Any], found: Answered) -> None:
    _plain(axes)
    if not found:
        _nothing(axes)
        return
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    for row, (*_, (times, values)) in enumerate(found):
        colours = [THRESHOLDS[steps[0]["color"]]] * len(times)
        for step in steps[1:]:
            above = THRESHOLDS[step["color"]]
            colours = [
                above if value >= step["value"] else colour
                for value, colour in zip(values, colours, strict=True)
            ]
        axes.scatter(times, [row] * len(times), marker="s", s=60, color=colours)
    axes.set_yticks(range(len(found)), [textwrap.shorten(one[1], 34) for one in found])
    axes.set_ylim(-0.7, len(found) - 0.3)
    first = min(one[3][0][0] for one in found)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at - first:.0f} s"))


def _table(axes: Axes, panel: dict[str, Any], found: Answered) -> None:
    axes.set_axis_off()
    if not found:
        _nothing(axes)
        return
    defaults = panel["fieldConfig"]["defaults"]
    last, *_ = reversed([one["options"] for one in panel["transformations"]])
    if "rowField" in last:
        across, down = last["columnField"], last["rowField"]
        cells = {(of[down], of[across]): values[1][-1] for _, _, of, values in found}
        heads = [f"{down}\\{across}", *sorted({column for _, column in cells})]
        looks = {}
    else:
        names: dict[str, str] = last["renameByName"]
        (down,) = table_labels(panel)
        letters = sorted(names.keys() - {down}, key=last["indexByName"].__getitem__)
        heads = [names[down], *(names[letter] for letter in letters)]
        looks = {
            one["matcher"]["options"]: {each["id"]: each["value"] for each in one["properties"]}
            for one in panel["fieldConfig"]["overrides"]
        }
        cells = {
            (of[down], names[f"Value #{letter}"]): values[1][-1]
            for letter, _, of, values in found
            if down in of
        }
    rows = [
        [row, *(_cell(cells.get((row, head)), defaults | looks.get(head, {}))
                for head in heads[1:])]
        for row in sorted({row for row, _ in cells})
    ]  # fmt: skip
    height = min(0.12 * (len(rows) + 1), 1)
    box = (0, 1 - height, 1, height)
    drawn = axes.table(rows, colLabels=heads, bbox=box, cellLoc="right", edges="horizontal")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    for cell in drawn.get_celld().values():
        cell.get_text().set_color(INK)
        cell.set_edgecolor("#2c3235")


def _cell(value: float | None, looks: dict[str, Any]) -> str:
    return "" if value is None else shown(float(value), looks["unit"], looks.get("decimals"))


_KINDS = {"timeseries": _lines, "stat": _number, "state-timeline": _states, "table": _table}
