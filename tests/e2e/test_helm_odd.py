"""Odd sets of values: both helms render them alike, and Kubernetes takes the objects."""

import functools
import json
import re

import pytest
import yaml

from tests.e2e.cluster_tools import helm4
from tests.e2e.helm_tools import (
    CHART,
    CI_VALUES,
    CUSTOM,
    KUBERNETES,
    ONE_MODEL,
    hold_against_kubernetes,
    pods,
    rendered,
    template,
    without_drawn,
)

EXTERNAL = {
    "mode": "external",
    "profile": "phi-3-mini",
    "backends": [{"url": "https://gpu.example.org/vllm"}],
}
NULLS = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
LONG = "a-release-whose-name-has-as-many-letters-as-helm-has1"
EVERYTHING = {
    "commonLabels": {"team": "a"},
    "commonAnnotations": {"owner": "b"},
    "recalibration": {"enabled": True, "prometheus": "http://p:9090"},
    "monitoring": dict.fromkeys(("serviceMonitor", "podMonitor", "rules", "dashboards"), True),
}

ODD = {
    "a release of 53 characters": ({**EVERYTHING}, LONG),
    "names of all lengths": (
        {
            "fullnameOverride": "f" * 40,
            "nameOverride": "n" * 40,
            "models": {**ONE_MODEL, "m" * 40: {"model": "x/y", "profile": "phi-3-mini"}},
        },
        LONG,
    ),
    "slashes and capitals in a model's name": (
        {"models": {**ONE_MODEL, "q": {"model": "Org/Model-7B", "name": "Org/Model-7B_v1.2",
                                  "profile": "phi-3-mini"}}},
        "jg",
    ),
    "a key that is a number": (
        {"models": {**ONE_MODEL, "7": {"model": "x/y", "profile": "phi-3-mini"}}}, "jg"
    ),
    "keys that are a date and a truth": (
        {"models": {**ONE_MODEL, "2024-01-01": {"model": "x/y", "profile": "phi-3-mini"},
                    "true": {"model": "x/y", "profile": "phi-3-mini"}}},
        "jg",
    ),
    "a release that is a number": ({**EVERYTHING, "fullnameOverride": "r0123"}, "0123"),
    "OpenShift's own users": ({"podSecurityContext": NULLS, **EVERYTHING}, "jg"),
    "no security context at all": (
        {"podSecurityContext": {**NULLS, "runAsNonRoot": None, "seccompProfile": None,
                                "fsGroupChangePolicy": None},
         "securityContext": {"allowPrivilegeEscalation": None, "readOnlyRootFilesystem": None,
                             "capabilities": None}},
        "jg",
    ),
    "external servers only": (
        {"models": {**dict.fromkeys(("phi-3-mini", "mistral-7b", "falcon-7b"), EXTERNAL)}}, "jg"
    ),
    "external servers without a meter": (
        {"models": {**ONE_MODEL, "phi-3-mini": EXTERNAL}, "meter": {"mode": "none"}}, "jg"
    ),
    "IPv6 alone": (
        {"listenAddress": "::", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"],
         "models": {**ONE_MODEL, "x": {**EXTERNAL, "backends": [{"url": "http://[fd00::1]:8000"}]}}},
        "jg",
    ),
    "AMD's GPUs": (
        {"modelDefaults": {"gpuResource": "amd.com/gpu", "gpus": 2, "replicas": 2,
                           "image": {"repository": "rocm/vllm", "tag": "v0.32"}}},
        "jg",
    ),
    "a part of a GPU": ({"modelDefaults": {"gpuResource": "nvidia.com/mig-1g.10gb"}}, "jg"),
    "no GPU": ({"modelDefaults": {"gpus": 0, "tolerations": []}}, "jg"),
    "no operators": ({"monitoring": dict.fromkeys(EVERYTHING["monitoring"], False)}, "jg"),
    "no network policies and no secret": (
        {"networkPolicy": {"enabled": False}, "meter": {"allowUnauthenticated": True}}, "jg"
    ),
    "no gateway for now": ({"gateway": {"replicas": 0}, "recalibration": {"suspend": True}}, "jg"),
    "everything closed": (
        {"networkPolicy": {"clients": [], "monitoring": [], "hub": [], "dns": []}}, "jg"
    ),
    "a registry of one's own": (
        {"global": {"imageRegistry": "registry.example.org:5000/mirror", "other": [1]},
         "modelDefaults": {"image": {"repository": "localhost/vllm"}}},
        "jg",
    ),
    "further objects": (
        {"extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap",
             "metadata": {"name": "{{ .Release.Name }}-extra"}, "data": {"a": "b"}},
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: {{ .Values.image.tag }}x-2}}",
        ]},
        "jg",
    ),
    "a balancer": (
        {"gateway": {"service": {"type": "LoadBalancer", "loadBalancerClass": "example.org/nlb",
                                 "loadBalancerSourceRanges": ["192.0.2.0/24"], "port": 8080}}},
        "jg",
    ),
    "pods with all that they may have": (
        {"modelDefaults": {
            "replicas": 3, "schedulerName": "volcano", "priorityClassName": "p",
            "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "X_"}],
            "initContainers": [{"name": "i", "image": "i:1"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "podDisruptionBudget": {"maxUnavailable": "50%"},
            "podLabels": {"a": "b"}, "podAnnotations": {"c": "d"},
        }},
        "jg",
    ),
    "numbers as texts": (
        {"gateway": {"resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
                     "podDisruptionBudget": {"maxUnavailable": "25%"}},
         "commonLabels": {"version": "1.0", "yes": "no"}, "commonAnnotations": {"number": "1"}},
        "jg",
    ),
    "every policy of the gateway's": (
        {"gateway": {"config": {
            "placement": {"mode": "weights", "max_slowdown": 1.5, "min_backends": 2},
            "presets": {"careful": {"weights": {"accuracy": 1}, "min_accuracy": 0.4,
                                    "accuracy_within": 0.05}},
            "energy_budget": {"joules_per_hour": 1000000},
            "experiment": {"name": "e", "baseline": {"policy": "relative"}, "block_minutes": 20,
                           "seed": 7},
        }}},
        "jg",
    ),
}  # fmt: skip
assert len(ODD) >= 20


@functools.cache
def objects_of(name):
    """Return the objects of a set; not to be changed."""
    values, release = ODD[name]
    return rendered(values, release=release)


@pytest.mark.parametrize("name", ODD)
def test_both_helms_make_the_same_of_it(name, tmp_path):
    values, release = ODD[name]
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    done = helm4("template", release, CHART, "--namespace", "llm", "--values", path)
    assert done.returncode == 0, done.stderr
    four = [tree for tree in yaml.safe_load_all(done.stdout) if tree]

    def sort(objects):
        found = without_drawn(objects)
        return sorted(found, key=lambda tree: (tree["kind"], tree["metadata"]["name"]))

    assert sort(four) == sort(objects_of(name))


@pytest.mark.parametrize("path", CI_VALUES, ids=lambda path: path.stem)
def test_helm_4_lints_every_way_to_install(path):
    done = helm4("lint", "--strict", CHART, "--values", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"\[(WARNING|ERROR)\]|level=(WARN|ERROR)", done.stdout + done.stderr)


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object_of_every_set(version, tmp_path):
    # What several sets have in common once.
    plain = {
        json.dumps(tree, sort_keys=True): tree
        for name in ODD
        for tree in without_drawn(objects_of(name))
        if tree["kind"] not in CUSTOM
    }
    hold_against_kubernetes(list(plain.values()), version, tmp_path)


@pytest.mark.parametrize("name", ODD)
def test_names_and_labels_are_what_kubernetes_allows(name):
    for tree in objects_of(name):
        about = tree["metadata"]
        if tree["kind"] == "Service":
            assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", about["name"]), about
        # A StatefulSet's pods and a CronJob's jobs hang up to 11 more on it.
        assert len(about["name"]) <= (52 if tree["kind"] in {"StatefulSet", "CronJob"} else 63)
        for labels in (about.get("labels", {}), about.get("annotations", {})):
            assert all(isinstance(value, str) for value in labels.values())
        for value in about.get("labels", {}).values():
            assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value), value


@pytest.mark.parametrize("name", ["a release of 53 characters", "numbers as texts"])
def test_everything_carries_what_everything_is_to_carry(name):
    values, _ = ODD[name]
    for tree in objects_of(name):
        assert values["commonLabels"].items() <= tree["metadata"]["labels"].items()
        annotations = tree["metadata"].get("annotations", {})
        assert values["commonAnnotations"].items() <= annotations.items(), tree["kind"]


def test_a_name_that_no_service_may_have_is_refused():
    done = template({}, release="0123")
    assert done.returncode != 0
    assert "fullnameOverride" in done.stderr


def test_no_image_comes_from_elsewhere():
    found = {
        box["image"]
        for pod in pods(objects_of("a registry of one's own")).values()
        for box in pod["containers"]
    }
    assert found == {
        "registry.example.org:5000/mirror/joulegate/joulegate:0.1.0",
        "registry.example.org:5000/mirror/vllm:v0.32.0",
    }


def test_further_objects_are_templates():
    names = {tree["metadata"]["name"] for tree in objects_of("further objects")}
    assert {"jg-extra", "x-2"} <= names
