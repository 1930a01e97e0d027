"""What an upgrade leaves as it is: a profile that recalibration wrote, servers that run."""

import json
import shutil

import pytest
import yaml

from gateway.config import load_config
from gateway.profile import load_profile
from tests.e2e.helm_tools import CHART, mount_config, one, pods, rendered

DIGEST = "sha256:" + "ab" * 32
LEARNT = "jg-joulegate-learnt"
RECALIBRATED = {"recalibration": {"enabled": True, "prometheus": "http://prometheus:9090"}}


def config_of(objects):
    return yaml.safe_load(one(objects, "ConfigMap", "jg-joulegate-config")["data"]["gateway.yaml"])


def sources_of(spec):
    """Return the ConfigMaps that a pod's folder of the profile is made of, in their order."""
    (folder,) = (one for one in spec["volumes"] if "configMap" in str(one.get("projected")))
    found = [source["configMap"] for source in folder["projected"]["sources"]]
    return {source["name"]: source for source in found}


@pytest.mark.parametrize("values", [RECALIBRATED, {}])
def test_the_learnt_profile_is_mounted_where_it_is_and_never_rendered(values):
    """So that no upgrade, rollback or Argo CD can put another in its place."""
    objects = rendered(values)
    assert LEARNT not in {tree["metadata"]["name"] for tree in objects}
    jobs = [name for name in pods(objects) if "CronJob" in name]
    assert len(jobs) == len(values)
    for name in ("Deployment/jg-joulegate", *jobs):
        source = sources_of(without_token(pods(objects)[name]))[LEARNT]
        assert source["optional"] is True
        assert source["items"] == [{"key": "profile.json", "path": "learnt.json"}]
    assert config_of(objects)["learnt_profile"] == "learnt.json"


def without_token(spec):
    """Return a pod's spec without the volume of the API's token, which has a ConfigMap too."""
    kept = [one for one in spec["volumes"] if "serviceAccountToken" not in str(one)]
    return {**spec, "volumes": kept}


def test_nothing_rendered_depends_on_what_the_cluster_has():
    """Helm 4's rollback and Argo CD render without asking it."""
    templates = list((CHART / "templates").glob("profile*"))
    assert templates
    for path in templates:
        assert "lookup" not in path.read_text()


def test_the_learnt_profile_can_be_left_aside():
    objects = rendered({**RECALIBRATED, "profile": {"replace": True}})
    assert "learnt_profile" not in config_of(objects)
    job = pods(objects)["CronJob/jg-joulegate-recalibration"]
    assert not [arg for arg in job["initContainers"][0]["args"] if "learnt" in arg]


def test_a_gateway_decides_by_what_is_mounted(tmp_path):
    """The folder as the kubelet makes it, before and after the job's first run."""
    config = load_config(mount_config(rendered({}), tmp_path))
    before = load_profile(config.profile_file, config.learnt_file)
    tree = json.loads((tmp_path / "profile.json").read_text())
    entry = tree["models"]["phi-3-mini"]
    entry["accuracy"] = {"default": 0.123}
    learnt = {"version": 1, "models": {"phi-3-mini": entry}}
    (tmp_path / "learnt.json").write_text(json.dumps(learnt))
    after = load_profile(config.profile_file, config.learnt_file)
    assert after.get_model("phi-3-mini").accuracy.default == 0.123
    assert after.get_model("mistral-7b") == before.get_model("mistral-7b")
    assert after.version != before.version


def test_a_shadow_profile_comes_from_the_values():
    shadow = (CHART / "files" / "published.json").read_text()
    objects = rendered({**RECALIBRATED, "profile": {"shadow": shadow}})
    assert one(objects, "ConfigMap", "jg-joulegate-profile")["data"]["shadow.json"] == shadow
    assert config_of(objects)["shadow"] == "shadow.json"


def later(tmp_path, **changes):
    """The chart as a later release's would be."""
    chart = shutil.copytree(CHART, tmp_path / "chart")
    about = chart / "Chart.yaml"
    about.write_text(yaml.safe_dump(yaml.safe_load(about.read_text()) | changes))
    return chart


def pod_templates(values, **how):
    return {
        (tree["kind"], tree["metadata"]["name"]): tree["spec"]["template"]
        for tree in rendered(values, **how)
        if tree["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}
    }


@pytest.mark.parametrize("name", ["full", "external", "demo"])
def test_a_chart_that_only_has_another_number_restarts_nothing(tmp_path, name):
    values = CHART / "ci" / f"{name}-values.yaml"
    chart = later(tmp_path, version="9.9.9")
    assert pod_templates(values, chart=chart) == pod_templates(values)


def test_a_later_gateway_restarts_no_server_whose_meter_s_image_is_pinned(tmp_path):
    chart = later(tmp_path, version="9.9.9", appVersion="9.9.9")
    for values, changed in (
        ({"meter": {"image": {"tag": "0.1.0"}}}, {"Deployment"}),
        ({"meter": {"image": {"digest": DIGEST}}}, {"Deployment"}),
        ({"meter": {"mode": "none"}}, {"Deployment"}),
        ({}, {"Deployment", "StatefulSet"}),
    ):
        before, after = pod_templates(values), pod_templates(values, chart=chart)
        assert {kind for (kind, _), tree in before.items() if after[kind, _] != tree} == changed


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, "ghcr.io/joulegate/joulegate:0.1.0"),
        ({"image": {"digest": DIGEST}}, f"ghcr.io/joulegate/joulegate@{DIGEST}"),
        (
            {"image": {"digest": DIGEST}, "meter": {"image": {"tag": "0.0.9"}}},
            "ghcr.io/joulegate/joulegate:0.0.9",
        ),
        (
            {"image": {"tag": "2"}, "meter": {"image": {"repository": "a.b/c"}}},
            "a.b/c:2",
        ),
    ],
)
def test_the_meter_s_image_is_the_gateway_s_unless_it_says_otherwise(values, image):
    template = pod_templates(values)["StatefulSet", "jg-joulegate-phi-3-mini"]
    (meter,) = (each for each in template["spec"]["containers"] if each["name"] == "meter")
    assert meter["image"] == image
