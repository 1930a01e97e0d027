"""The chart's routes, monitoring and recalibration, as helm renders them."""

import json
import re
import shutil
import subprocess

import pytest
import typer
import yaml

import calibration.cli
from calibration.recalibrate import prometheus
from tests.e2e.helm_tools import CHART, CI_VALUES, containers, of_ci, one, pods, rendered

MONITORED = {"monitoring": dict.fromkeys(("rules", "dashboards"), True)}


@pytest.fixture
def chart(tmp_path):
    """A copy of the chart with no rules and no dashboards."""
    copy = shutil.copytree(CHART, tmp_path / "chart")
    for folder in ("rules", "dashboards"):
        shutil.rmtree(copy / folder, ignore_errors=True)
        (copy / folder).mkdir()
    return copy


def test_rules_are_taken_from_whatever_files_there_are(chart):
    annotation = "{{ $labels.model }} is {{ $value | humanize }}"
    rule = {"alert": "A", "expr": "up{} == 0", "annotations": {"summary": annotation}}
    for name, groups in (("a.yaml", ["one", "two"]), ("b.yaml", ["three"])):
        tree = {"groups": [{"name": group, "rules": [rule]} for group in groups]}
        (chart / "rules" / name).write_text(yaml.safe_dump(tree))
    (chart / "rules" / "tests.yaml").write_text(yaml.safe_dump({"rule_files": [], "tests": []}))
    groups = one(rendered(MONITORED, chart=chart), "PrometheusRule")["spec"]["groups"]
    assert [group["name"] for group in groups] == ["one", "two", "three"]
    # Prometheus' own templates are not helm's.
    assert groups[0]["rules"][0]["annotations"]["summary"] == annotation


def test_dashboards_are_taken_from_whatever_files_there_are(chart):
    dashboard = {"title": "Überblick", "panels": [{"expr": 'x{a="$b"}', "format": "{{model}}"}]}
    text = json.dumps(dashboard, ensure_ascii=False, indent=2)
    (chart / "dashboards" / "cost_overview.json").write_text(text)
    objects = rendered(MONITORED, chart=chart)
    tree = one(objects, "ConfigMap", "jg-joulegate-dashboard-cost-overview")
    assert tree["data"] == {"cost_overview.json": text}
    assert tree["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_without_rules_and_dashboards_there_are_no_empty_objects(chart):
    objects = rendered(MONITORED, chart=chart)
    assert "PrometheusRule" not in {tree["kind"] for tree in objects}
    assert not [tree for tree in objects if "dashboard" in tree["metadata"]["name"]]


def test_monitors_find_their_ports():
    objects = of_ci("full")
    service = one(objects, "Service", "jg-gate")
    (endpoint,) = one(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    pod = pods(objects)["StatefulSet/jg-gate-falcon-7b"]
    named = {port["name"] for each in containers(pod) for port in each["ports"]}
    scraped = one(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert {each["port"] for each in scraped} == named == {"http", "meter"}
    for kind in ("ServiceMonitor", "PodMonitor"):
        assert one(objects, kind)["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_recalibration_may_patch_one_object_and_nothing_else():
    objects = of_ci("full")
    (rule,) = one(objects, "Role")["rules"]
    gateway = pods(objects)["Deployment/jg-gate"]
    names = [
        source["configMap"]["name"] for source in gateway["volumes"][0]["projected"]["sources"]
    ]
    assert rule == {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["jg-gate-learnt"],
        "verbs": ["create", "patch"],
    }
    assert rule["resourceNames"][0] in names
    binding = one(objects, "RoleBinding")
    (subject,) = binding["subjects"]
    job = pods(objects)["CronJob/jg-gate-recalibration"]
    assert job["serviceAccountName"] == subject["name"] == binding["roleRef"]["name"]
    others = {
        pod["serviceAccountName"] for name, pod in pods(objects).items() if "CronJob" not in name
    }
    assert subject["name"] not in others


def test_only_the_container_that_publishes_has_a_token():
    for name, pod in pods(of_ci("full")).items():
        tokens = {
            volume["name"]
            for volume in pod.get("volumes", [])
            if "serviceAccountToken" in json.dumps(volume)
        }
        holders = [
            each["name"]
            for each in containers(pod)
            if tokens & {mount["name"] for mount in each.get("volumeMounts", [])}
        ]
        assert holders == (["publish"] if name == "CronJob/jg-gate-recalibration" else [])


def test_recalibration_s_options_are_those_of_the_command():
    job = pods(of_ci("full"))["CronJob/jg-gate-recalibration"]
    (first,) = job["initContainers"]
    command = typer.main.get_command(calibration.cli.app).commands["recalibrate"]
    known = {option for each in command.params for option in each.opts}
    assert {option.partition("=")[0] for option in first["args"][1:]} <= known
    assert "--model=zephyr-7b=mistral-7b" in first["args"]
    matches = [option for option in first["args"] if option.startswith("--match")]
    assert matches == ['--match=namespace="llm"', '--match=service="jg-gate"']
    for option in matches:
        prometheus.parse_matcher(option.removeprefix("--match="))
    out = "/work/profile.json"
    assert f"--out={out}" in first["args"]
    (publish,) = job["containers"]
    assert publish["args"] == ["jg-gate-learnt", "/etc/joulegate/learnt.json", out]
    assert "--learnt=/etc/joulegate/learnt.json" in first["args"]


@pytest.mark.parametrize(
    ("values", "matches"),
    [
        ({}, ['--match=namespace="llm"']),
        ({"match": []}, []),
        ({"match": ["cluster=~a|b"]}, ["--match=cluster=~a|b"]),
    ],
)
def test_recalibration_reads_its_own_release(values, matches):
    recalibration = {"enabled": True, "prometheus": "http://prometheus:9090", **values}
    job = pods(rendered({"recalibration": recalibration}))["CronJob/jg-joulegate-recalibration"]
    args = job["initContainers"][0]["args"]
    assert [option for option in args if option.startswith("--match")] == matches


def test_recalibration_can_wait():
    recalibration = {"enabled": True, "prometheus": "http://p:9090", "deadlineSeconds": 1000000}
    spec = one(rendered({"recalibration": recalibration}), "CronJob")["spec"]
    assert spec["suspend"] is False
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 1000000
    recalibration["suspend"] = True
    assert one(rendered({"recalibration": recalibration}), "CronJob")["spec"]["suspend"] is True


@pytest.mark.parametrize(
    ("code", "writes", "ends"), [(0, True, 0), (0, False, 0), (1, True, 0), (1, False, 1)]
)
def test_what_was_adopted_is_published_even_where_some_was_refused(tmp_path, code, writes, ends):
    (first,) = pods(of_ci("full"))["CronJob/jg-gate-recalibration"]["initContainers"]
    shell, flag, text, name = first["command"]
    out = tmp_path / "profile.json"
    (tmp_path / "joulegate").write_text(
        f"#!/bin/sh\n{f'echo x >{out}' if writes else ':'}\nexit {code}\n"
    )
    (tmp_path / "joulegate").chmod(0o700)
    done = subprocess.run(
        [shell, flag, text.replace("/work/profile.json", str(out)), name, *first["args"]],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        timeout=30,
        check=False,
    )
    assert done.returncode == ends


def test_a_dry_run_writes_nothing_and_has_no_rights():
    recalibration = {"enabled": True, "prometheus": "http://prometheus:9090", "dryRun": True}
    objects = rendered({"recalibration": recalibration})
    assert not {"Role", "RoleBinding"} & {tree["kind"] for tree in objects}
    job = pods(objects)["CronJob/jg-joulegate-recalibration"]
    assert [each["name"] for each in containers(job)] == ["recalibrate"]
    assert "--dry-run" in job["containers"][0]["args"]
    assert "serviceAccountToken" not in json.dumps(job["volumes"])


@pytest.mark.parametrize("kind", ["Ingress", "HTTPRoute"])
def test_from_outside_only_the_api_is_reached(kind):
    spec = one(of_ci("full"), kind)["spec"]
    text = json.dumps(spec)
    assert '"/v1"' in text
    assert not re.search("metrics|health|ready|schema", text)
    if kind == "Ingress":
        assert spec["tls"][0]["secretName"] == "llm-tls"
        assert [rule["host"] for rule in spec["rules"]] == ["llm.example.org", "llm.example.com"]


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_the_notes_give_the_next_command(chart, values):
    # Helm prints them only after an install; a template may include them.
    notes = '{{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}'
    (chart / "templates" / "notes.yaml").write_text(
        f"kind: Notes\nmetadata: {{name: notes}}\ntext: {notes}\n"
    )
    objects = rendered(values, chart=chart)
    text = one(objects, "Notes")["text"]
    deployment = one(objects, "Deployment")
    name = deployment["metadata"]["name"]
    seconds = deployment["spec"]["progressDeadlineSeconds"]
    assert f"kubectl -n llm rollout status deployment/{name} --timeout={seconds}s" in text
    assert f"port-forward service/{name} 8080:80" in text
    full, ingress = values.stem == "full-values", values.stem == "no-operators-values"
    assert ("https://llm.example.org/v1" in text) is full
    assert ("http://llm.example.org/v1" in text) is ingress
    assert ("does not check who its clients are" in text) is (full or ingress)
    assert ("create job --from=cronjob/jg-gate-recalibration" in text) is full
    assert "\n\n\n" not in text
