"""The chart's gateway objects, and what holds for all pods, read from what helm renders."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from gateway import config
from gateway.cli import app
from tests.e2e.helm_tools import (
    CHART,
    CI_VALUES,
    containers,
    of_ci,
    one,
    pods,
    rendered,
    without_drawn,
)

NAMES = [path.name.removesuffix("-values.yaml") for path in CI_VALUES]
every_ci = pytest.mark.parametrize("name", NAMES)
COMMANDS = typer.main.get_command(app).commands


def deployment(objects):
    return one(objects, "Deployment")


def gateway_yaml(objects):
    for tree in objects:
        if "gateway.yaml" in tree.get("data", {}):
            return tree["data"]["gateway.yaml"]
    raise AssertionError("no ConfigMap has gateway.yaml")


def labels_of(objects):
    """Return the labels of every workload's pods."""
    return [
        tree["spec"]["template"]["metadata"]["labels"]
        for tree in objects
        if tree["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}
    ]


def chosen(selector, labels):
    return selector.items() <= labels.items()


@every_ci
def test_names_are_unique_short_and_stable(name):
    objects = of_ci(name)
    names = [(tree["kind"], tree["metadata"]["name"]) for tree in objects]
    assert len(names) == len(set(names))
    for kind, called in names:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", called), called
        if kind in {"StatefulSet", "CronJob"}:
            assert len(called) <= 52
    again = rendered(CHART / "ci" / f"{name}-values.yaml")
    assert without_drawn(again) == without_drawn(objects)


def test_the_meters_secret_is_drawn_given_or_done_without():
    drawn, other = (one(rendered({}), "Secret")["data"]["secret"] for _ in range(2))
    assert drawn != other
    assert len(base64.b64decode(drawn)) == 40
    for meter in ({"secret": {"name": "mine"}}, {"allowUnauthenticated": True}, {"mode": "none"}):
        objects = rendered({"meter": meter})
        assert not [tree for tree in objects if tree["kind"] == "Secret"]
        texts = json.dumps(objects)
        assert ("--no-secret" in texts) == ("allowUnauthenticated" in meter)
        assert ('"METER_SECRET"' in texts) == ("secret" in meter)


def test_a_long_release_name_still_gives_valid_names():
    values = {
        "models": {
            "a-model-with-quite-a-long-name-for-a-key": {"model": "x/y", "profile": "phi-3-mini"}
        },
        "recalibration": {"enabled": True, "prometheus": "http://prometheus:9090"},
    }
    objects = rendered(values, release="a-release-whose-name-takes-all-the-fifty-three-chars")
    for tree in objects:
        limit = 52 if tree["kind"] in {"StatefulSet", "CronJob"} else 63
        assert len(tree["metadata"]["name"]) <= limit
        for value in tree["metadata"]["labels"].values():
            assert len(value) <= 63
    sets = [tree for tree in objects if tree["kind"] == "StatefulSet"]
    assert len({tree["metadata"]["name"] for tree in sets}) == 4


@every_ci
def test_every_selector_matches_the_pods_it_is_for_and_no_others(name):
    objects = of_ci(name)
    for tree in objects:
        spec = tree.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if tree["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            mine = spec["template"]["metadata"]["labels"]
            assert chosen(selector["matchLabels"], mine)
            others = [labels for labels in labels_of(objects) if labels != mine]
            assert not any(chosen(selector["matchLabels"], labels) for labels in others)
        elif tree["kind"] in {"Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"}:
            wanted = selector.get("matchLabels", selector)
            component = wanted["app.kubernetes.io/component"]
            hits = [labels for labels in labels_of(objects) if chosen(wanted, labels)]
            assert all(labels["app.kubernetes.io/component"] == component for labels in hits)
            # Without servers of its own the chart's policy for them selects nothing.
            assert hits or component in {"recalibration", "model"}


def test_two_releases_in_a_namespace_do_not_select_each_other():
    first, second = (rendered({}, release=release) for release in ("one", "two"))
    for tree in first:
        if tree["kind"] == "Service":
            assert not any(chosen(tree["spec"]["selector"], each) for each in labels_of(second))


@every_ci
def test_every_pod_is_locked_down(name):
    for called, pod in pods(of_ci(name)).items():
        assert pod["automountServiceAccountToken"] is False, called
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= container["resources"].keys()
            assert not container["image"].endswith((":latest", ":"))
        for volume in pod.get("volumes", []):
            assert "hostPath" not in volume


@every_ci
def test_secrets_come_from_secrets(name):
    objects = of_ci(name)
    made = [tree["metadata"]["name"] for tree in objects if tree["kind"] == "Secret"]
    assert made in ([], ["jg-joulegate-meter"])
    for pod in pods(objects).values():
        for container in containers(pod):
            for variable in container.get("env", []):
                secret = re.search("SECRET|TOKEN$|KEY", variable["name"])
                assert not secret or set(variable) == {"name", "valueFrom"}, variable


@every_ci
def test_every_volume_that_is_mounted_is_there_and_the_other_way_round(name):
    objects = of_ci(name)
    for tree in objects:
        claims = {
            claim["metadata"]["name"]
            for claim in tree.get("spec", {}).get("volumeClaimTemplates", [])
        }
        for pod in pods([tree]).values():
            there = {volume["name"] for volume in pod.get("volumes", [])} | claims
            mounted = {
                mount["name"]
                for container in containers(pod)
                for mount in container.get("volumeMounts", [])
            }
            assert mounted == there
            for volume in pod.get("volumes", []):
                for source in volume.get("projected", {}).get("sources", [volume]):
                    wanted = source.get("configMap", {}).get("name")
                    if source.get("configMap", {}).get("optional"):
                        # What the recalibration's job makes; nothing else may be missing.
                        assert wanted.endswith("-learnt")
                    elif wanted not in {None, "kube-root-ca.crt"}:
                        one(objects, "ConfigMap", wanted)


@every_ci
def test_joulegate_takes_the_gateway_yaml(name, tmp_path):
    objects = of_ci(name)
    pod = pods(objects)[f"Deployment/{deployment(objects)['metadata']['name']}"]
    config_folder = pod["volumes"][0]["projected"]["sources"]
    for source in config_folder:
        if "secret" in source:
            # The keys' file, which is the operator's.
            for item in source["secret"]["items"]:
                (tmp_path / item["path"]).write_text("keys: []\n")
            continue
        if source["configMap"].get("optional"):
            continue
        data = one(objects, "ConfigMap", source["configMap"]["name"])["data"]
        for file, text in data.items():
            (tmp_path / file).write_text(text)
    (container,) = pod["containers"]
    env = {variable["name"]: "secret" for variable in container.get("env", [])}
    done = subprocess.run(
        [
            Path(sys.executable).with_name("joulegate"),
            *("check", "--config", tmp_path / "gateway.yaml"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **env},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    served = [model["name"] for model in yaml.safe_load(gateway_yaml(objects))["models"]]
    assert served


def test_config_values_reach_the_gateway_as_they_are(monkeypatch):
    for variable in ("METER_SECRET", *(f"BACKEND_KEY_{key}" for key in ("ZEPHYR_7B", "FALCON_7B"))):
        monkeypatch.setenv(variable, "s3cret")
    monkeypatch.setenv("BACKEND_KEY_PHI_3_MINI", "other")
    monkeypatch.setenv("BACKEND_KEY_MISTRAL_7B", "other")
    parsed = config.parse_config(gateway_yaml(of_ci("full")), "gateway.yaml")
    assert parsed.policy == "hybrid"
    assert parsed.limits.max_body_bytes == 33554432
    assert parsed.timeouts.drain_seconds == 120
    assert parsed.meter_secret == "s3cret"
    models = {model.name: model for model in parsed.models}
    assert models["zephyr-7b"].profile == "mistral-7b"
    assert [backend.api_key for backend in models["phi-3-mini"].backends] == ["other", "other"]


def test_the_config_restarts_the_gateway_and_the_profile_does_not():
    def checksum(values):
        template = deployment(rendered(values))["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/config"]

    plain = checksum({})
    assert plain == checksum({"gateway": {"replicas": 5}})
    known = {"phi-3-mini": {}, "mistral-7b": {}, "falcon-7b": {}}
    assert plain == checksum({"profile": {"data": json.dumps({"version": 1, "models": known})}})
    assert plain != checksum({"gateway": {"config": {"policy": "hybrid"}}})
    assert plain != checksum({"models": {"phi-3-mini": {"replicas": 2}}})


def test_a_pod_has_time_to_drain():
    spec = deployment(of_ci("full"))["spec"]["template"]["spec"]
    # 10 s of preStop, 120 s of drain, and what uvicorn waits beyond it.
    assert spec["terminationGracePeriodSeconds"] >= 10 + 120 + 5
    (container,) = spec["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "10"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"


@every_ci
def test_every_option_is_one_that_joulegate_has(name):
    for pod in pods(of_ci(name)).values():
        for container in containers(pod):
            command = container.get("args", [""])[0]
            if command not in COMMANDS or command == "recalibrate":
                continue
            known = {option for each in COMMANDS[command].params for option in each.opts}
            given = {
                option.partition("=")[0] for option in container["args"] if option.startswith("--")
            }
            assert given <= known


def test_a_digest_takes_the_tag_s_place():
    digest = "sha256:" + "ab" * 32
    objects = rendered({"image": {"tag": "1.2.3", "digest": digest}})
    image = pods(objects)["Deployment/jg-joulegate"]["containers"][0]["image"]
    assert image == f"ghcr.io/joulegate/joulegate@{digest}"


def test_names_that_look_like_numbers_stay_names():
    names = [str(number) for number in range(7001, 7014)]
    given = iter(names)
    values = {
        "nameOverride": next(given),
        # A Service's name must begin with a letter.
        "fullnameOverride": "seven",
        "serviceAccount": {"name": next(given)},
        "modelDefaults": {
            "hub": {"secretName": next(given), "secretKey": next(given)},
            "cache": {"storageClass": next(given)},
            "runtimeClassName": next(given),
            "apiKeySecret": {"name": next(given)},
        },
        "models": {"phi-3-mini": {"cache": {"type": "claim", "claim": next(given)}}},
        "meter": {"secret": {"name": next(given), "key": next(given)}},
        "ingress": {"enabled": True, "className": next(given), "tlsSecret": next(given)},
        "recalibration": {
            "enabled": True,
            "prometheus": "http://prometheus:9090",
            "bearerTokenSecret": {"name": next(given)},
        },
    }
    text = json.dumps(rendered(values, release="7000"))
    for name in ("7000", *names):
        assert f'"{name}"' in text
        assert not re.search(rf"[ \[]{name}[,\]}}]", text)


def test_nothing_of_the_profile_is_lost_on_the_way(tmp_path):
    text = (CHART.parent / "gateway/profiles/published.json").read_text()
    assert one(rendered({}), "ConfigMap", "jg-joulegate-profile")["data"]["profile.json"] == text
    mine = json.loads(text)
    mine["models"]["phi-3-mini"]["accuracy"]["default"] = 0.7
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    objects = rendered({}, more=("--set-file", f"profile.data={tmp_path / 'mine.json'}"))
    profile = one(objects, "ConfigMap", "jg-joulegate-profile")["data"]["profile.json"]
    assert json.loads(profile) == mine
