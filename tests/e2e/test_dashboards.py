"""Dashboards, recording rules and alerts against a real Prometheus that scrapes all of it, loaded.

JOULEGATE_PICTURES names a folder in which the dashboards' pictures are kept.
"""

import json
import math
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml

from backends.vllm.recipes import RECIPES
from tests.e2e.grafana import show_tables
from tests.e2e.monitored import FALCON, MISTRAL, PHI, RULES, TENANTS, monitored, until
from tests.e2e.renderer import draw, panels
from tests.e2e.watched import (
    Watched,
    bypassed,
    recalibrated,
    until_all_fire,
    until_calm,
)

DASHBOARDS = sorted((RULES.parent / "dashboards").glob("*.json"))
PROMTOOL = shutil.which("promtool")
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}
RECORDED = {
    rule["record"]: rule["expr"]
    for group in yaml.safe_load((RULES / "recording.yaml").read_text())["groups"]
    for rule in group["rules"]
}
SLOW = {"slow_headers": {"delay_s": 12}}
SLOWER = {"slow_headers": {"delay_s": 1}}
# It answers nothing: what answers with failures stays a last resort.
DEAD = {"reset_on_accept": {}, "unhealthy": {}}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Everything under load, past a few failures, with a profile that fits."""
    began = time.time()
    with monitored(tmp_path_factory.mktemp("monitored")) as (stack, prometheus):
        bypassed(stack, prometheus)
        stack.fault(PHI, {"die_after": {"count": 4}})
        until(lambda: prometheus.query("joulegate_streams_broken_total"), "a stream has broken")
        stack.fault(PHI, {"status": {"count": 4}}, only=1)
        enough = 'min(joulegate_prediction_requests_total{quantity!="output_tokens"})'
        until(lambda: prometheus.value(enough) >= 20, "each model has been compared")
        recalibrated(stack, prometheus)
        until_calm(prometheus, 120)
        yield Watched(stack, prometheus, began)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = os.environ.get("JOULEGATE_PICTURES")
    return Path(folder) if folder else tmp_path_factory.mktemp("pictures")


@pytest.mark.skipif(PROMTOOL is None, reason="no `promtool` on the PATH")
@pytest.mark.parametrize(
    "argv",
    [("check", "rules", *RULES.glob("*.yaml")), ("test", "rules", *RULES.glob("tests/*.yaml"))],
    ids=["check", "test"],
)
def test_promtool_accepts_the_rules_and_their_tests(argv):
    done = subprocess.run([PROMTOOL, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_the_variables_find_their_values(watched):
    models = httpx.get(f"{watched.prometheus.url}/api/v1/label/model/values").json()["data"]
    assert set(RECIPES) <= set(models)


def test_every_recording_rule_returns_data_and_is_recorded(watched):
    assert [name for name, expr in RECORDED.items() if not watched.has_data(expr)] == []
    assert [name for name in RECORDED if not watched.has_data(name)] == []


def test_prometheus_takes_every_rule(watched):
    groups = watched.prometheus.api("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {*ALERTS, *RECORDED}
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_the_shipped_alerts_can_be_evaluated(watched):
    # The copy that Prometheus evaluates has shorter windows; what alerted within those here fires.
    firing = {name for name, rule in ALERTS.items() if watched.prometheus.query(rule["expr"])}
    assert firing <= {"JoulegateDrift"}


@pytest.fixture(scope="module")
def harmed(watched):
    """What fired while everything went wrong that can; all of it is well again."""
    stack, prometheus = watched.stack, watched.prometheus
    until_calm(prometheus)
    stack.fault(FALCON, DEAD)
    stack.fault(MISTRAL, SLOW)
    stack.fault(PHI, SLOWER)
    stack.meter.kill()
    stack.lie = 7.0
    stack.configure({"unheard": "of"})
    until_all_fire(prometheus, set(ALERTS) - {"JoulegateAbsent"})
    firing = prometheus.alerts()

    def drifts():
        return [of for of in prometheus.alerts().get("JoulegateDrift", ()) if of["model"] == PHI]

    # By another second a request; it may take longer than the twelve of the other.
    firing["JoulegateDrift"] = until(drifts, "phi-3-mini drifts")
    for model in RECIPES:
        stack.fault(model, {})
    stack.lie = 0.0
    stack.configure({})
    stack.meter.start()
    until_calm(prometheus, 150)
    return firing


def test_alerts_fire_and_clear(watched, harmed):
    stack, firing = watched.stack, harmed
    assert set(firing) == set(ALERTS) - {"JoulegateAbsent"}
    assert {of["model"] for of in firing["JoulegateErrorRate"]} <= {FALCON, "none"}
    assert {of["model"] for of in firing["JoulegateNoUsableBackend"]} == {FALCON}
    urls = {one.url.removeprefix("http://") for one in stack.by_model[FALCON]}
    assert {of["backend"] for of in firing["JoulegateBackendEjected"]} == urls
    assert {of["model"] for of in firing["JoulegateFirstTokenSlow"]} == {MISTRAL}
    assert {of["model"] for of in firing["JoulegateDrift"]} == {PHI}
    assert (PHI, "seconds") in {
        (of["model"], of["quantity"]) for of in firing["JoulegateProfileStale"]
    }
    for name in ("MeterMissing", "ConservationBroken", "CounterMissing", "MeterDisputes"):
        assert len(firing[f"Joulegate{name}"]) == 1, name
    assert [of["reason"] for of in firing["JoulegateMeterRefusing"]] == ["open_requests"]


@pytest.mark.usefixtures("harmed")
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_every_panel_returns_data(watched, path):
    asked = {
        (panel["title"], target["expr"]): watched.wrong(panel, target)
        for panel in panels(json.loads(path.read_text()))
        for target in panel["targets"]
    }
    assert {query: what for query, what in asked.items() if what} == {}


@pytest.mark.usefixtures("harmed")
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_shares_add_up_to_the_whole(watched, path):
    for panel in panels(json.loads(path.read_text())):
        matrix = "rowField" in str(panel.get("transformations"))
        of_share = panel["fieldConfig"]["defaults"]["unit"] == "percentunit"
        if not (of_share and (matrix or panel["fieldConfig"]["defaults"].get("max") == 1)):
            continue
        wholes = {}
        for of, samples in watched.over_time(panel["targets"][0]["expr"]):
            for at, value in samples:
                if math.isfinite(value):
                    key = of["preset"] if matrix else "", at
                    wholes[key] = wholes.get(key, 0) + value
        assert wholes, panel["title"]
        assert list(wholes.values()) == pytest.approx([1] * len(wholes)), panel["title"]


@pytest.mark.usefixtures("harmed")
def test_one_page_says_what_routing_saved_by_tenant(watched):
    path = RULES.parent / "dashboards" / "finops.json"
    by_title = {panel["title"]: panel for panel in panels(json.loads(path.read_text()))}
    columns = {}
    for target in by_title["By tenant"]["targets"]:
        answer = watched.at(time.time(), target["expr"], span="60s")
        columns[target["legendFormat"]] = {of["tenant"]: at[-1][1] for of, at in answer}
    for head in ("Requests", "Energy, idle out", "Price, idle out", "CO2e, idle out"):
        assert all(columns[head][tenant] > 0 for tenant in TENANTS), head
    for head in ("Saved", "Energy saved", "Money saved", "CO2e saved"):
        assert set(TENANTS) <= set(columns[head]), head
    # Every tenant asks `auto` in this load, and a saving has one sign in each of its units.
    for tenant in TENANTS:
        signs = {columns[head][tenant] > 0 for head in columns if "aved" in head}
        assert len(signs) == 1, tenant


@pytest.mark.usefixtures("harmed")
def test_grafana_s_own_code_makes_a_row_for_each_and_knows_every_unit(watched):
    every = [panel for path in DASHBOARDS for panel in panels(json.loads(path.read_text()))]
    tables = [panel for panel in every if panel["type"] == "table"]
    # Grafana asks all queries of a panel for one moment, and joins their answers by it too.
    now = time.time()
    asked = [
        (
            panel,
            {
                target["refId"]: watched.at(now, target["expr"], span="60s")
                for target in panel["targets"]
            },
        )
        for panel in tables
    ]
    made = show_tables(asked)
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in every} <= set(made["units"])
    shown = dict(zip((panel["title"] for panel in tables), made["tables"], strict=True))
    assert all(table["frames"] == 1 for table in shown.values())
    by_tenant = shown["By tenant"]
    assert by_tenant["heads"] == [
        *("Tenant", "Requests", "Energy, idle out", "Price, idle out", "CO2e, idle out", "Saved"),
        *("Energy saved", "Money saved", "CO2e saved", "currency"),
    ]
    rows = {row[0]: row for row in by_tenant["rows"]}
    assert set(TENANTS) <= set(rows)
    for tenant in TENANTS:
        said = dict(zip(by_tenant["heads"], rows[tenant], strict=True))
        assert re.fullmatch(r"[\d.]+ m?Wh", said["Energy, idle out"]), said
        assert re.fullmatch(r"-?[\d.]+%", said["Saved"]), said
        assert re.fullmatch(r"[\d.]+ m?g", said["CO2e, idle out"]), said
        assert all(said.values()), said
    assert {row[0] for row in shown["By model"]["rows"]} >= set(RECIPES)
    shares = shown["Share of models within a preset, whole range"]
    assert set(shares["heads"][1:]) == set(RECIPES)
    assert {"energy", "accuracy", "none"} <= {row[0] for row in shares["rows"]}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_drawn(watched, path, pictures):
    out = pictures / f"{path.stem}.png"
    draw(path, watched.over_time, out)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_gateway_that_is_gone_is_missed(watched):
    stack, prometheus = watched.stack, watched.prometheus
    stack.gateway.kill()
    until(lambda: set(prometheus.alerts()) == {"JoulegateAbsent"}, "its absence is noticed")
    assert [of["job"] for of in prometheus.alerts()["JoulegateAbsent"]] == ["gateway"]
    stack.gateway.start()
    until(lambda: "JoulegateAbsent" not in prometheus.alerts(), "its return is noticed")
