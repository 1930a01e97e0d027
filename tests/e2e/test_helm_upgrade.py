"""What an upgrade leaves as it is: a profile that recalibration wrote, servers that run.

helm asks a Kubernetes API (`lookup`) that is a stand-in with one ConfigMap.
"""

import http.server
import json
import shutil
import threading

import pytest
import yaml

from tests.e2e.helm_tools import CHART, one, rendered

LIVE = {
    "profile.json": '{"version": 1, "models": {"phi-3-mini": "refitted"}}\n',
    "previous.json": '{"version": 1, "models": {"phi-3-mini": "before"}}',
}
RESOURCES = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "v1",
    "resources": [
        {"name": "configmaps", "namespaced": True, "kind": "ConfigMap", "verbs": ["get"]}
    ],
}
DIGEST = "sha256:" + "ab" * 32
PATH = "/api/v1/namespaces/llm/configmaps/jg-joulegate-profile"
MINE = {"profile": {"data": '{"version": 1, "models": {"phi-3-mini": "mine"}}'}}
# The profiles here have one model, and a model without an entry is refused.
ALONE = {"models": {"mistral-7b": {"enabled": False}, "falcon-7b": {"enabled": False}}}
RECALIBRATED = {"recalibration": {"enabled": True, "prometheus": "http://prometheus:9090"}}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.partition("?")[0]
        tree = self.server.objects.get(path)
        body = json.dumps(tree or {"kind": "Status", "reason": "NotFound", "code": 404}).encode()
        self.send_response(200 if tree else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster(tmp_path):
    """The stand-in's objects by path, and what makes helm ask it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.objects = {"/api/v1": RESOURCES}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": "c",
                        "cluster": {"server": f"http://127.0.0.1:{server.server_port}"},
                    }
                ],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )
    )

    yield server.objects, ("--kubeconfig", str(kubeconfig))
    server.shutdown()
    server.server_close()


def profile_after(cluster, values, live=LIVE):
    """Return the profile's ConfigMap as helm would apply it over what is there."""
    objects, kubeconfig = cluster
    if live:
        metadata = {"name": "jg-joulegate-profile", "namespace": "llm"}
        objects[PATH] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": live,
        }
    made = rendered({**ALONE, **values}, more=(*kubeconfig, "--dry-run=server"))
    return one(made, "ConfigMap", "jg-joulegate-profile")["data"]


def rendered_profile(values):
    made = rendered({**ALONE, **values})
    return one(made, "ConfigMap", "jg-joulegate-profile")["data"]


def shipped():
    return rendered_profile({})


@pytest.mark.parametrize("values", [RECALIBRATED, {}])
def test_an_upgrade_keeps_what_recalibration_wrote(cluster, values):
    """And does so where recalibration was switched off since."""
    assert profile_after(cluster, {**values, **MINE}) == LIVE


def test_the_first_install_begins_with_the_profile_of_the_values(cluster):
    assert profile_after(cluster, RECALIBRATED, live=None) == shipped()


@pytest.mark.parametrize("values", [RECALIBRATED, {}])
def test_before_recalibration_wrote_the_values_rule(cluster, values):
    live = {"profile.json": LIVE["profile.json"]}
    assert profile_after(cluster, {**values, **MINE}, live=live) == rendered_profile(MINE)


def test_a_model_that_recalibration_did_not_know_comes_from_the_values(cluster):
    more = {"phi-3-mini": "the values'", "new": {"seconds": [-1.52761255216e-05, 49071, 1e25]}}
    values = {"profile": {"data": json.dumps({"version": 1, "models": more})}}
    data = profile_after(cluster, {**RECALIBRATED, **values})
    assert data["previous.json"] == LIVE["previous.json"]
    assert json.loads(data["profile.json"]) == {
        "version": 1,
        "models": {"phi-3-mini": "refitted", "new": more["new"]},
    }
    assert '"version": 1\n' in data["profile.json"]


def test_a_live_profile_that_is_none_is_not_kept(cluster):
    live = {"profile.json": "{", "previous.json": "{}"}
    assert profile_after(cluster, MINE, live=live) == rendered_profile(MINE)


def test_a_profile_can_be_put_in_its_place_on_purpose_once(cluster):
    replaced = profile_after(cluster, {**RECALIBRATED, "profile": {"replace": True}})
    assert replaced == {**shipped(), "previous.json": ""}
    # The next upgrade's profile counts again.
    assert profile_after(cluster, MINE, live=replaced) == rendered_profile(MINE)


def test_a_shadow_profile_comes_from_the_values_whatever_recalibration_wrote(cluster):
    shadow = '{"version": 1, "models": {"phi-3-mini": "tried"}}'
    values = {**RECALIBRATED, "profile": {"shadow": shadow}}
    live = {**LIVE, "shadow.json": "the one before"}
    kept = profile_after(cluster, values, live=live)
    assert (kept["shadow.json"], kept["previous.json"]) == (shadow, LIVE["previous.json"])
    assert "shadow.json" not in profile_after(cluster, RECALIBRATED, live=live)
    made = rendered({**ALONE, **values})
    text = one(made, "ConfigMap", "jg-joulegate-config")["data"]["gateway.yaml"]
    assert yaml.safe_load(text)["shadow"] == "shadow.json"


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
