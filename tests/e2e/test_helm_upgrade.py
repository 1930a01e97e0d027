"""What an upgrade does with a profile that recalibration has written: helm's `lookup`, for real.

The Kubernetes API that helm asks is a stand-in with one ConfigMap.
"""

import http.server
import json
import threading

import pytest
import yaml

from tests.e2e.helm_tools import one, rendered

LIVE = {
    "profile.json": '{"version": 1, "models": {"phi-3-mini": "refitted"}}',
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
PATH = "/api/v1/namespaces/llm/configmaps/jg-joulegate-profile"
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
    made = rendered(values, more=(*kubeconfig, "--dry-run=server"))
    return one(made, "ConfigMap", "jg-joulegate-profile")["data"]


def shipped():
    return one(rendered({}), "ConfigMap", "jg-joulegate-profile")["data"]


def test_an_upgrade_keeps_what_recalibration_wrote(cluster):
    assert profile_after(cluster, RECALIBRATED) == LIVE


def test_the_first_install_begins_with_the_profile_of_the_values(cluster):
    assert profile_after(cluster, RECALIBRATED, live=None) == shipped()


def test_a_profile_can_be_put_in_its_place_on_purpose(cluster):
    assert profile_after(cluster, {**RECALIBRATED, "profile": {"replace": True}}) == shipped()


def test_without_recalibration_the_values_rule(cluster):
    assert profile_after(cluster, {}) == shipped()


def test_a_shadow_profile_comes_from_the_values_whatever_recalibration_wrote(cluster):
    shadow = '{"version": 1, "models": {"phi-3-mini": "tried"}}'
    values = {**RECALIBRATED, "profile": {"shadow": shadow}}
    live = {**LIVE, "shadow.json": "the one before"}
    assert profile_after(cluster, values, live=live) == {**LIVE, "shadow.json": shadow}
    assert profile_after(cluster, RECALIBRATED, live=live) == LIVE
    text = one(rendered(values), "ConfigMap", "jg-joulegate-config")["data"]["gateway.yaml"]
    assert yaml.safe_load(text)["shadow"] == "shadow.json"
