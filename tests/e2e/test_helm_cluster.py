"""Both helms against a real API: what the chart may, what its job may, and what stays learnt."""

import dataclasses
import hashlib
import json

import pytest
import yaml

from tests.e2e.cluster_tools import MissingToolError, client_tools
from tests.e2e.helm_tools import CHART, python_tools, run_publisher
from tests.e2e.kubernetes_api import old_enough, serving

SHIPPED = (CHART / "files" / "published.json").read_text()
LEARNT, AGAIN = SHIPPED.replace("}", " }", 1), SHIPPED.replace("}", "  }", 1)
VALUES = {
    "recalibration": {"enabled": True, "prometheus": "http://prometheus:9090"},
    # Of Kubernetes 1.27.
    "gateway": {"zoneSpread": "none"},
    "modelDefaults": {"mode": "simulator"},
}
JOB = "jg-joulegate-recalibration"
OBJECT = "jg-joulegate-learnt"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, pytestconfig):
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        try:
            with serving(tmp_path_factory.mktemp("kubernetes")) as running:
                yield running
        except MissingToolError as error:
            pytest.skip(str(error))


@pytest.fixture
def api(cluster, request):
    """The API, with a namespace of this test's own."""
    digest = hashlib.sha256(request.node.name.encode()).hexdigest()
    own = dataclasses.replace(cluster, namespace=f"llm-{digest[:8]}")
    assert own.kubectl("create", "namespace", own.namespace).returncode == 0
    return own


@pytest.fixture(params=["helm 3", "helm 4"])
def installed(api, request, tmp_path):
    """The chart by one of the two; how to run that helm on it."""
    program = (python_tools() if request.param == "helm 3" else client_tools()) / "helm"
    chart = old_enough(tmp_path)

    def run(verb, *more, **values):
        path = tmp_path / "values.yaml"
        path.write_text(yaml.safe_dump({**VALUES, **values}))
        return api.helm(program, verb, "jg", chart, "--values", path, *more)

    run("install")
    run.program = program
    return run


@pytest.fixture
def publish(api, installed, tmp_path):
    """Run the job's script with the job's own token: (exit code, what it said)."""
    assert installed.program.exists()
    account = tmp_path / "account"
    account.mkdir()
    token = api.kubectl("-n", api.namespace, "create", "token", JOB)
    assert token.returncode == 0, token.stderr
    (account / "token").write_text(token.stdout.strip())
    (account / "namespace").write_text(api.namespace)
    (account / "ca.crt").write_bytes(api.certificate.read_bytes())

    def run(new, name=OBJECT):
        folder = tmp_path / "mounted"
        folder.mkdir(exist_ok=True)
        there = api.get("configmap", name)
        learnt = folder / "learnt.json"
        learnt.unlink(missing_ok=True)
        if there is not None and "profile.json" in there["data"]:
            learnt.write_text(there["data"]["profile.json"])
        (folder / "new.json").write_text(new)
        return run_publisher(
            name,
            learnt,
            folder / "new.json",
            host="127.0.0.1",
            port=api.port,
            account=account,
        )

    run.token = token.stdout.strip()
    return run


def test_what_is_learnt_outlives_upgrade_rollback_and_uninstall(api, installed, publish):
    code, said = publish(LEARNT)
    assert code == 0, said
    code, said = publish(AGAIN)
    assert code == 0, said
    learnt = api.get("configmap", OBJECT)
    assert learnt["data"] == {"profile.json": AGAIN, "previous.json": LEARNT}
    managers = {entry["manager"] for entry in learnt["metadata"]["managedFields"]}
    assert managers == {"joulegate-recalibration"}
    # Each of these failed under helm 4 where the job wrote into an object of the chart's.
    changed = json.dumps({**json.loads(SHIPPED), "created": "2030-01-01T00:00:00Z"})
    installed("upgrade", profile={"data": changed})
    installed("upgrade", profile={"data": changed, "replace": True})
    api.helm(installed.program, "rollback", "jg", "1")
    shipped = api.get("configmap", "jg-joulegate-profile")
    assert shipped["data"]["profile.json"] == SHIPPED
    assert api.get("configmap", OBJECT)["data"] == learnt["data"]
    code, said = publish(LEARNT)
    assert code == 0, said
    api.helm(installed.program, "uninstall", "jg")
    assert api.get("configmap", "jg-joulegate-profile") is None
    assert api.get("configmap", OBJECT)["data"]["previous.json"] == AGAIN


def test_the_job_s_token_reaches_that_one_object_and_no_other(api, publish):
    assert api.get("configmap", "jg-joulegate-config") is not None
    for other in ("jg-joulegate-profile", "jg-joulegate-config", "another"):
        code, said = publish(LEARNT, name=other)
        assert code == 1, said
        assert "403" in said
        assert "forbidden" in said
    assert api.get("configmap", "another") is None
    assert publish(LEARNT)[0] == 0
    for verb, what in (
        ("get", f"configmaps/{OBJECT}"),
        ("list", "configmaps"),
        ("delete", f"configmaps/{OBJECT}"),
        ("update", f"configmaps/{OBJECT}"),
        ("get", "secrets"),
        ("create", "pods"),
        ("create", "configmaps"),
    ):
        assert api.ask_access(JOB, verb, what) == "no", (verb, what)
    assert api.ask_access(JOB, "patch", f"configmaps/{OBJECT}") == "yes"


@pytest.mark.usefixtures("installed")
def test_the_account_of_everything_else_may_nothing(api):
    for verb, what in (
        ("get", "configmaps"),
        ("patch", f"configmaps/{OBJECT}"),
        ("get", "secrets"),
    ):
        assert api.ask_access("jg-joulegate", verb, what) == "no", (verb, what)


def test_the_meters_secret_is_the_same_after_an_upgrade(api, installed):
    before = api.get("secret", "jg-joulegate-meter")["data"]
    installed("upgrade", commonLabels={"team": "inference"})
    after = api.get("secret", "jg-joulegate-meter")
    assert after["data"] == before
    assert after["metadata"]["labels"]["team"] == "inference"
