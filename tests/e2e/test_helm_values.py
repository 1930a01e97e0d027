"""Values that would end in a crash loop or in something else than was meant: said when rendered."""

import shutil

import pytest
import yaml

from gateway.config import load_config
from tests.e2e.helm_tools import (
    CHART,
    ONE_MODEL,
    containers,
    mount_config,
    of_ci,
    one,
    pods,
    rendered,
    template,
)


def arguments(objects):
    return [
        text
        for pod in pods(objects).values()
        for box in containers(pod)
        for text in box.get("args", ())
    ]


def test_every_argument_is_text_whatever_the_values_are():
    found = arguments(of_ci("ipv6"))
    assert found.count("--host=::") >= 3
    assert all(isinstance(text, str) for text in found)
    odd = {
        "listenAddress": "::",
        "recalibration": {
            "enabled": True,
            "prometheus": "http://[fd00::9]:9090",
        },
        "models": {"7": {"name": "org/Model-7", "profile": "phi-3-mini", "mode": "external",
                         "backends": [{"url": "http://[fd00::1]:8000"}]}},
    }  # fmt: skip
    objects = rendered(odd)
    found = arguments(objects)
    assert "--prometheus=http://[fd00::9]:9090" in found
    assert "--model=7=phi-3-mini" in found


def test_labels_are_text_where_a_models_key_is_a_number():
    values = {"models": {**ONE_MODEL, "7": {"model": "org/m", "profile": "phi-3-mini"}}}
    server = one(rendered(values), "StatefulSet", "jg-joulegate-7")
    labels = server["spec"]["template"]["metadata"]["labels"]
    assert labels["joulegate.io/model"] == "7"


def test_both_ip_families():
    services = [tree["spec"] for tree in of_ci("ipv6") if tree["kind"] == "Service"]
    assert len(services) >= 3
    for spec in services:
        assert (spec["ipFamilyPolicy"], spec["ipFamilies"]) == ("PreferDualStack", ["IPv6", "IPv4"])
    for tree in of_ci("minimal"):
        assert not {"ipFamilyPolicy", "ipFamilies"} & tree.get("spec", {}).keys()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"models": {"new": {"model": "org/x"}}},
            'models.new: no entry "new" in profile.json (it has: falcon-7b, mistral-7b, phi-3-m',
        ),
        (
            {"models": {"phi-3-mini": {"profile": "phi"}}},
            'models.phi-3-mini: no entry "phi" in profile.json',
        ),
        (
            {"models": ONE_MODEL, "profile": {"data": '{"version": 1, "models": {"other": {}}}'}},
            'models.phi-3-mini: no entry "phi-3-mini" in profile.json (it has: other)',
        ),
        (
            {"profile": {"shadow": '{"version": 1, "models": {"phi-3-mini": {}}}'}},
            'no entry "falcon-7b" in shadow.json',
        ),
    ],
)
def test_a_model_without_a_profile_entry_is_refused(values, said):
    done = template(values)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.fixture
def chart(tmp_path):
    """A copy of the chart that may be added to."""
    return shutil.copytree(CHART, tmp_path / "chart")


def notes(chart, values):
    text = '{{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}'
    path = chart / "templates" / "notes.yaml"
    path.write_text(f"kind: Notes\nmetadata: {{name: notes}}\ntext: {text}\n")
    return one(rendered(values, chart=chart), "Notes")["text"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, None),
        ({"gateway": {"workers": 2}}, "gateway.resources.limits.memory"),
        ({"gateway": {"workers": 3}}, "gateway.resources.limits.cpu 2: a worker uses one core"),
        (
            {"gateway": {"workers": 2, "resources": {"limits": {"cpu": "1500m", "memory": "2Gi"}}}},
            "gateway.resources.limits.cpu 1500m",
        ),
        (
            {"gateway": {"workers": 2, "resources": {"limits": {"cpu": 2, "memory": "2Gi"}}}},
            None,
        ),
        (
            {"models": {"phi-3-mini": {"replicas": 2, "cache": {"type": "claim", "claim": "w"}}}},
            "models.phi-3-mini: 2 servers share the claim w",
        ),
        ({"meter": {"mode": "daemonset"}}, "models.falcon-7b: served here, and meter.mode"),
    ],
)
def test_what_may_go_wrong_stands_in_the_notes(chart, values, said):
    text = notes(chart, values)
    assert ("Look at this before you rely on it" in text) is (said is not None)
    if said is not None:
        assert said in text
    assert "\n\n\n" not in text


def test_keys_come_from_a_secret_beside_gateway_yaml(tmp_path):
    values = {"gateway": {"keysSecret": {"name": "who"}, "config": {"policy": "relative"}}}
    objects = rendered(values)
    path = mount_config(objects, tmp_path)
    assert yaml.safe_load(path.read_text())["keys"] == {"file": "keys.yaml"}
    pod = pods(objects)["Deployment/jg-joulegate"]
    (folder,) = (volume for volume in pod["volumes"] if volume["name"] == "config")
    wanted = {"name": "who", "items": [{"key": "keys.yaml", "path": "keys.yaml"}]}
    assert {"secret": wanted} in folder["projected"]["sources"]
    assert load_config(path).keys.file == str(tmp_path / "keys.yaml")


def test_helm_s_test_asks_only_what_it_may():
    def asked(values):
        return pods(rendered(values))["Pod/jg-joulegate-test"]["containers"][0]["args"][0]

    assert "/v1/models" in asked({})
    assert "/v1/models" not in asked({"gateway": {"keysSecret": {"name": "who"}}})


def test_what_gateway_yaml_has_may_stand_in_the_values(tmp_path):
    config = {
        "presets": {"careful": {"weights": {"accuracy": 1}, "min_accuracy": 0.4}},
        "placement": {"mode": "weights", "max_slowdown": 1.5, "min_backends": 2},
        "energy_budget": {"joules_per_hour": 1_000_000},
        "experiment": {"name": "e", "baseline": {"model": "phi-3-mini"}, "seed": 7},
    }
    loaded = load_config(mount_config(rendered({"gateway": {"config": config}}), tmp_path))
    assert loaded.presets["careful"].min_accuracy == 0.4
    assert loaded.placement.min_backends == 2
    assert loaded.energy_budget.joules_per_hour == 1_000_000
    assert loaded.experiment.baseline.model == "phi-3-mini"
