"""Write the five dashboards that Grafana loads, beside this file.

`python helm/dashboards/build.py` writes them; with `--check` it writes nothing, lists what is
stale and exits 1.
"""

# ruff: noqa: INP001, T201 - a script

import json
import sys
from itertools import count
from pathlib import Path

import backends_page
import calibration_page
import finops_page
import overview_page
import parts
import routing_page
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

HERE = Path(__file__).parent
PAGES = (
    overview_page.PAGE,
    routing_page.PAGE,
    calibration_page.PAGE,
    backends_page.PAGE,
    finops_page.PAGE,
)
TAG = "joulegate"
_SCHEMA = 41
"""Of Grafana 11.6; a later Grafana migrates it."""


def built(page: parts.Page) -> str:
    """Return a page as Grafana's JSON."""
    made = (
        dashboard.Dashboard(f"Joulegate / {page.title}")
        .uid(f"joulegate-{page.name}")
        .description(page.text)
        .tags([TAG])
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(page.since, "now")
        .refresh("30s")
        .readonly()
    )
    for variable in variables():
        made.with_variable(variable)
    link = dashboard.DashboardLink("Joulegate").type(models.DashboardLinkType.DASHBOARDS)
    made.link(link.tags([TAG]).include_vars(True).keep_time(True).as_dropdown(True))
    numbers = count(1)
    for row in page.rows:
        made.with_row(dashboard.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            made.with_panel(parts.built(panel, next(numbers)))
    tree = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    tree["schemaVersion"] = _SCHEMA
    return json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def variables() -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    """Return the variables that every page has; all is everything, series without it included."""
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    queries = {
        "cluster": "label_values(joulegate_profile_info, cluster)",
        "namespace": 'label_values(joulegate_profile_info{cluster=~"$cluster"}, namespace)',
        "release": (
            'label_values(joulegate_profile_info{cluster=~"$cluster", namespace=~"$namespace"},'
            " release)"
        ),
        "model": f"label_values(joulegate_profile_info{{{parts.HERE}}}, model)",
    }
    return [
        dashboard.DatasourceVariable("datasource").label("Datasource").type("prometheus"),
        *(
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .query({"query": query, "refId": name, "qryType": 1})
            .datasource(parts.SOURCE)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(everything)
            for name, query in queries.items()
        ),
    ]


def main() -> int:
    """Write, or with --check compare; the exit code."""
    stale = []
    for page in PAGES:
        path, text = HERE / f"{page.name}.json", built(page)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if "--check" not in sys.argv[1:]:
                path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv[1:] and stale:
        print(f"stale, run helm/dashboards/build.py: {', '.join(stale)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
