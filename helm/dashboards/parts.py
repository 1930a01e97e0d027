"""What a page of the dashboards is made of, and how that becomes Grafana's panels.

Rules of this file:

- A panel says what it shows in its description, has a unit, and queries the variable datasource.
- A counter of what seldom happens may have no series until it does; `or_zero` shows that as 0,
  but only beside what there is: a panel without data has to look like one.
- Intervals are `$__rate_interval`, but for what a recording rule has computed over its own.
- What is over the dashboard's time is a number or a table and no line, and is asked once: at each
  point of a line it would be over another time, and cost as much again.
"""

# ruff: noqa: INP001 - a script's helper

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from grafana_foundation_sdk.builders import common as looks
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from tables import build_matrix, build_table

Kind = Literal["lines", "stack", "share", "number", "states", "table", "matrix"]
Step = tuple[float | None, str]

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
HERE = 'cluster=~"$cluster", namespace=~"$namespace", release=~"$release"'
"""Selects the installation alone: the meter's series have no model."""
OF = f'{HERE}, model=~"$model"'
"""Selects by installation and model."""
RATE = "$__rate_interval"
SPAN = "$__range"
SECONDS, JOULES, WATTS, GRAMS = "s", "joule", "watt", "massg"
SHARE, COUNT, PER_SECOND, REQUESTS = "percentunit", "short", "ops", "reqps"
_SMALL = 4
UP: tuple[Step, ...] = ((None, "red"), (1, "green"))


class Query(NamedTuple):
    """An expression, and its legend in Grafana's `{{label}}` form; in a table its column's head."""

    expr: str
    legend: str = ""
    dotted: bool = False
    """Drawn thin, dotted and not in the legend: belongs to the query of the same legend."""
    unit: str = ""
    """Of a table's column; the panel's where it has none."""
    decimals: int = 2
    """Of a table's column with a unit of its own."""


class Panel(NamedTuple):
    """One panel; `width` is of 24, `steps` are thresholds from the lowest on."""

    title: str
    text: str
    unit: str
    queries: Sequence[Query]
    kind: Kind = "lines"
    width: int = 8
    steps: Sequence[Step] = ()
    least: float | None = 0
    """The axis' lower end; None is whatever comes."""
    decimals: int | None = None
    by: tuple[str, ...] = ()
    """The label of a table's rows; of a matrix' rows and columns."""
    height: int = 8


class Row(NamedTuple):
    """A heading and the panels below it."""

    title: str
    panels: Sequence[Panel]


class Page(NamedTuple):
    """One dashboard."""

    name: str
    title: str
    text: str
    rows: Sequence[Row]
    since: str = "now-1h"
    """What it shows when it is opened: from then on."""


def or_zero(expr: str, beside: str) -> str:
    """Return the expression, and 0 for each series of `beside` that it has none for."""
    return f"{expr} or 0 * {beside}"


def shares(series: str, by: str, within: str = "") -> str:
    """Return each one's part of all, or of those that have the same label `within`."""
    labels = f"{within}, {by}" if within else by
    whole = f"sum by ({within}) ({series})" if within else f"sum({series})"
    return f"sum by ({labels}) ({series}) / on ({within}) group_left () {whole}"


def quantiles(series: str, by: str, *shares: float) -> list[Query]:
    """Return a query for each quantile of recorded bucket rates, over what `by` does not name."""
    labels = f"{by}, le" if by else "le"
    prefix = "".join(f"{{{{{label}}}}} " for label in by.split(", ") if label)
    return [
        Query(
            f"histogram_quantile({share:g}, sum by ({labels}) ({series}))",
            f"{prefix}p{share * 100:g}",
        )
        for share in shares
    ]


def built(panel: Panel, number: int) -> Any:
    """Return a panel's builder."""
    made = _KINDS[panel.kind](panel)
    made.id(number).title(panel.title).description(panel.text).datasource(SOURCE)
    made.span(panel.width).height(4 if panel.width < _SMALL else panel.height).unit(panel.unit)
    if panel.least is not None:
        made.min(panel.least)
    if panel.decimals is not None:
        made.decimals(panel.decimals)
    steps = [models.Threshold(value, colour) for value, colour in panel.steps or ((None, "green"),)]
    made.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    if any(query.dotted for query in panel.queries):
        # What belongs together has one name, and so one colour.
        by_name = models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME
        made.color_scheme(dashboard.FieldColor().mode(by_name))
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(SOURCE)
        target = target.instant() if SPAN in query.expr else target.range()
        if panel.by:
            target.format(PromQueryFormat.TABLE)
        made.with_target(target.legend_format(query.legend or "__auto"))
        if query.dotted:
            made.override_by_query(
                letter,
                [
                    models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [2, 6]}),
                    models.DynamicConfigValue("custom.lineWidth", 1),
                    models.DynamicConfigValue(
                        "custom.hideFrom", {"legend": True, "tooltip": False, "viz": False}
                    ),
                ],
            )
    return made


def _lines(panel: Panel) -> timeseries.Panel:
    made = timeseries.Panel().line_width(2).fill_opacity(8).show_points(look.VisibilityMode.NEVER)
    made.legend(
        looks.VizLegendOptions()
        .display_mode(look.LegendDisplayMode.LIST)
        .placement(look.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )
    made.tooltip(
        looks.VizTooltipOptions()
        .mode(look.TooltipDisplayMode.MULTI)
        .sort(look.SortOrder.DESCENDING)
    )
    if panel.steps:
        mode = look.GraphThresholdsStyleMode.DASHED
        made.thresholds_style(looks.GraphThresholdsStyleConfig().mode(mode))
    return made


def _stack(panel: Panel) -> timeseries.Panel:
    mode = look.StackingMode.NORMAL
    made = _lines(panel).stacking(looks.StackingConfig().mode(mode).group("A"))
    return made.line_width(1).fill_opacity(55)


def _share(panel: Panel) -> timeseries.Panel:
    return _stack(panel).max(1)


def _number(panel: Panel) -> stat.Panel:
    once = any(SPAN in query.expr for query in panel.queries)
    graph = look.BigValueGraphMode.NONE if once else look.BigValueGraphMode.AREA
    made = stat.Panel().graph_mode(graph)
    made.color_mode(look.BigValueColorMode.VALUE)
    return made.reduce_options(looks.ReduceDataOptions().calcs(["lastNotNull"]))


def _states(_: Panel) -> statetimeline.Panel:
    made = statetimeline.Panel().fill_opacity(70).line_width(0)
    made.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    legend = looks.VizLegendOptions().display_mode(look.LegendDisplayMode.LIST)
    made.legend(legend.placement(look.LegendPlacement.BOTTOM).show_legend(False).calcs([]))
    return made.mappings(
        [
            models.ValueMap(
                {
                    "0": models.ValueMappingResult(text="no", color="red", index=0),
                    "1": models.ValueMappingResult(text="yes", color="green", index=1),
                }
            )
        ]
    )


_KINDS: dict[Kind, Any] = {
    "lines": _lines,
    "stack": _stack,
    "share": _share,
    "number": _number,
    "states": _states,
    "table": build_table,
    "matrix": build_matrix,
}
