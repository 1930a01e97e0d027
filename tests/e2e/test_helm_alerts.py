"""Alerts tuned by values, as the real helm renders them."""

import re

import pytest
import yaml

from tests.e2e.helm_tools import CHART, one, rendered, template

RULES = [
    group
    for path in sorted((CHART / "rules").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
]


def tuned(**alerts):
    """Return the groups rendered with these `monitoring.alerts`."""
    values = {"monitoring": {"rules": True, "alerts": alerts}}
    return one(rendered(values), "PrometheusRule")["spec"]["groups"]


def by_name(groups):
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


SHIPPED = by_name(RULES)
# What ends in a number that is not 0, or counts from it.
THRESHOLDS = [
    name
    for name, rule in SHIPPED.items()
    if re.search(r"> [0-9.]+$", rule["expr"].strip()) and "1.25" not in rule["expr"]
]


def stripped(groups):
    """Return them without the space that a block of text may end in."""
    return [
        {**group, "rules": [{**rule, "expr": rule["expr"].strip()} for rule in group["rules"]]}
        for group in groups
    ]


def test_by_default_they_are_those_of_the_files():
    assert stripped(tuned()) == stripped(RULES)


def test_one_alert_differs_and_no_other():
    own = {"for": "20m", "severity": "info", "labels": {"team": "a"}, "threshold": 0.2}
    alerts = by_name(tuned(overrides={"JoulegateErrorRate": own}))
    changed = {name for name, rule in alerts.items() if rule != SHIPPED[name]}
    assert changed == {"JoulegateErrorRate"}
    rule = alerts["JoulegateErrorRate"]
    assert rule["expr"] == "namespace_model:joulegate_request_errors:ratio_rate5m > 0.2"
    assert (rule["for"], rule["labels"]) == ("20m", {"severity": "info", "team": "a"})


def test_thresholds_are_there_for_what_compares():
    assert set(THRESHOLDS) >= {"JoulegateErrorRate", "JoulegateFirstTokenSlow", "JoulegateDrift"}
    alerts = by_name(tuned(overrides={name: {"threshold": 7} for name in THRESHOLDS}))
    for name in THRESHOLDS:
        before, after = SHIPPED[name]["expr"].strip(), alerts[name]["expr"].strip()
        assert after == re.sub(r"> [0-9.]+$", "> 7", before)
    band = by_name(tuned(overrides={"JoulegateProfileStale": {"threshold": 2}}))
    text = band["JoulegateProfileStale"]["expr"]
    assert text.count("> 2\n") == text.count("< 0.5\n") == 1
    assert "1.25" not in text
    assert "0.8" not in text


def test_an_alert_can_be_left_out():
    alerts = by_name(tuned(overrides={"JoulegateDrift": {"enabled": False}}))
    assert set(alerts) == set(SHIPPED) - {"JoulegateDrift"}
    none = tuned(overrides={name: {"enabled": False} for name in SHIPPED})
    assert by_name(none) == {}
    assert all(group["rules"] for group in none)


def test_labels_and_runbook_of_one_s_own():
    mine = "https://wiki.example.org/joulegate"
    alerts = by_name(tuned(labels={"team": "llm"}, runbookUrl=mine))
    assert alerts.keys() == SHIPPED.keys()
    for name, rule in alerts.items():
        assert rule["labels"] == {**SHIPPED[name]["labels"], "team": "llm"}
        assert rule["annotations"]["runbook_url"] == f"{mine}#{name.lower()}"
    alerts = by_name(tuned(runbookUrl=""))
    assert alerts.keys() == SHIPPED.keys()
    for rule in alerts.values():
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"Nobody": {"enabled": False}}, 'no alert "Nobody" (there are: JoulegateAbsent, '),
        ({"JoulegateMeterMissing": {"threshold": 1}}, "this alert has no threshold"),
        ({"JoulegateProfileStale": {"threshold": 0.5}}, "a ratio of at least 1"),
        ({"JoulegateDrift": {"treshold": 1}}, "treshold"),
        ({"JoulegateDrift": {"for": "soon"}}, "for"),
    ],
)
def test_what_cannot_be_is_said(overrides, said):
    done = template({"monitoring": {"rules": True, "alerts": {"overrides": overrides}}})
    assert done.returncode != 0
    assert said in done.stderr
