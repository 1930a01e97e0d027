"""The dashboards are what their script gives, and name only what is exported or recorded.

That their queries return data is shown against a real Prometheus, in tests/e2e/test_dashboards.py.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import series  # noqa: E402 - a script's helper, not a package

DASHBOARDS = sorted((ROOT / "helm/dashboards").glob("*.json"))
RULES = ROOT / "helm/rules"
METRICS = {one.name: one for one in (*series.of_gateway(), *series.of_meter())}
VLLM = {
    "vllm:generation_tokens_total",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:prompt_tokens_total",
    "vllm:time_to_first_token_seconds_bucket",
}
RUNBOOK = "https://github.com/joulegate/joulegate/blob/main/docs/runbook.md#"

every_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def rules(name):
    groups = yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


RECORDED = {rule["record"]: rule["expr"] for rule in rules("recording.yaml")}
ALERTS = {rule["alert"]: rule for rule in rules("alerts.yaml")}


def exported():
    """Every name that a sample may have."""
    for one in METRICS.values():
        parts = ("_bucket", "_sum", "_count") if one.kind == "histogram" else ("",)
        yield from (f"{one.name}{part}" for part in parts)


# Of kube-state-metrics 2.
KUBE_STATE = {
    f"kube_cronjob_{what}" for what in ("created", "spec_suspend", "status_last_successful_time")
}
KNOWN = {*exported(), *RECORDED, *VLLM, *KUBE_STATE}


def named(expr):
    """The metrics that an expression names; what selects by labels is left out."""
    bare = re.sub(r"\{[^}]*\}", "", expr)
    return {
        name
        for name in re.findall(r"[a-z_:][\w:]*", bare)
        if "joulegate" in name or ":" in name or name.startswith("kube_")
    }


def labels_of(expr):
    """(metric, labels that it is selected by), for each selector."""
    for name, selectors in re.findall(r"([a-z_:][\w:]*)\{([^}]*)\}", expr):
        yield name, set(re.findall(r"(\w+)(?:=|!)", selectors))


def panels(path):
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets(path):
    return [target for panel in panels(path) for target in panel["targets"]]


def test_there_are_five():
    found = [path.stem for path in DASHBOARDS]
    assert found == ["backends", "calibration", "finops", "overview", "routing"]


def test_the_json_is_what_the_script_gives():
    argv = [sys.executable, ROOT / "helm/dashboards/build.py", "--check"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@every_dashboard
def test_it_is_what_grafana_knows_and_nothing_else(path):
    plugins.register_default_plugins()
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    loaded = Dashboard.from_json(dashboard)
    assert json.loads(json.dumps(loaded, cls=JSONEncoder)) == dashboard


@every_dashboard
def test_a_dashboard_is_whole(path):
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    assert dashboard["schemaVersion"] == 41
    assert dashboard["uid"] == f"joulegate-{path.stem}"
    assert dashboard["description"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    narrowing = {"cluster", "namespace", "release", "model"}
    assert set(variables) == {"datasource", *narrowing}
    assert all(variables[name]["allValue"] == ".*" for name in narrowing)


@every_dashboard
def test_panels_lie_side_by_side_and_fill_their_rows(path):
    covered = set()
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & covered, panel["title"]
        covered |= cells
    assert {x for x, _ in covered} == set(range(24))
    assert len(covered) == 24 * (max(y for _, y in covered) + 1)


@every_dashboard
def test_every_panel_says_what_it_shows_and_in_what_unit(path):
    for panel in panels(path):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@every_dashboard
def test_what_is_over_the_whole_range_says_so_is_asked_once_and_is_no_line(path):
    row = ""
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        for target in panel["targets"]:
            whole = "$__range" in target["expr"]
            assert target["instant"] is whole, panel["title"]
            assert target["range"] is not whole, panel["title"]
            said = "whole range" in panel["title"] or "ver the dashboard's time" in row
            assert said or not whole, panel["title"]
            assert panel["type"] != "timeseries" or not whole, panel["title"]


@every_dashboard
def test_what_counts_joules_says_whether_idle_is_in(path):
    for panel in panels(path):
        exprs = " ".join(target["expr"] for target in panel["targets"])
        if not re.search(r"joulegate_(\w*energy_joules|co2e_grams|cost)", exprs):
            continue
        said = f"{panel['title']} {panel['description']}".lower()
        assert re.search(r"\bidle\b", said), panel["title"]


@every_dashboard
def test_every_metric_of_a_panel_exists(path):
    for target in targets(path):
        assert named(target["expr"])
        assert named(target["expr"]) <= KNOWN, target["expr"]


@every_dashboard
def test_a_panel_of_nothing_shows_nothing(path):
    # A constant is there whatever is scraped; a 0 may stand only beside series that are.
    for target in targets(path):
        assert not re.search(r"\b(vector|scalar|time|absent)\b *\(", target["expr"])
        _, *fallbacks = target["expr"].split(" or ")
        assert all(named(one) and one.startswith("0 * sum") for one in fallbacks), target["expr"]


@every_dashboard
def test_every_selector_heeds_the_variables(path):
    for target in targets(path):
        selectors = dict(labels_of(target["expr"]))
        assert set(selectors) == named(target["expr"]), target["expr"]
        for name, labels in selectors.items():
            assert {"cluster", "namespace", "release"} <= labels, target["expr"]
            has_model = "model" in getattr(METRICS.get(name), "labels", ())
            # Baselines are of all models, and so must be what is held against them.
            of_all = "joulegate_baseline_energy" in target["expr"] or "chosen" in target.values()
            assert "model" in labels or not has_model or of_all, target["expr"]


@every_dashboard
def test_every_label_selected_by_is_one_that_the_metric_has(path):
    for target in targets(path):
        for name, labels in labels_of(target["expr"]):
            if name in METRICS:
                assert labels <= {
                    "cluster",
                    "namespace",
                    "release",
                    "instance",
                    *METRICS[name].labels,
                }, target["expr"]


@pytest.mark.parametrize("expr", [*RECORDED.values(), *(one["expr"] for one in ALERTS.values())])
def test_every_metric_of_a_rule_exists(expr):
    assert named(expr)
    assert named(expr) <= KNOWN


def test_every_recorded_series_is_used():
    used = set().union(
        *(named(target["expr"]) for path in DASHBOARDS for target in targets(path)),
        *(named(expr) for expr in RECORDED.values()),
        *(named(one["expr"]) for one in ALERTS.values()),
    )
    assert set(RECORDED) <= used


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_leads_to_its_section_of_the_runbook(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}{name.lower()}"
    page = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert all(f"**{part}.**" in section for part in ("Means", "Look", "Do"))
    assert f"| {rule['labels']['severity']} |" in page.partition(f"[{name}]")[2].partition("\n")[0]


def test_the_runbook_has_no_section_without_an_alert():
    page = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (.*)$", page, re.MULTILINE)) == set(ALERTS)


def test_every_alert_has_a_test_that_it_fires():
    tree = yaml.safe_load((RULES / "tests/alerts.yaml").read_text(encoding="utf-8"))
    fired = {
        one["alertname"]
        for test in tree["tests"]
        for one in test["alert_rule_test"]
        if one["exp_alerts"]
    }
    assert fired == set(ALERTS)
