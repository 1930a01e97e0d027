"""The chart as its users' tools see it: helm, Kubernetes' schemas, custom resources, checkov."""

import copy
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.e2e.helm_tools import (
    CHART,
    CI_VALUES,
    CUSTOM,
    KUBERNETES,
    helm,
    hold_against_kubernetes,
    node_tools,
    of_ci,
    python_tools,
    rendered,
    template,
    typescript,
    without_drawn,
)

NAMES = [path.name.removesuffix("-values.yaml") for path in CI_VALUES]
every_ci = pytest.mark.parametrize("name", NAMES)

# Failed checks that are meant: (check, kinds) -> why.
EXCEPTIONS = {
    ("CKV_K8S_43", "any"): "a digest is a value; the default follows the chart's appVersion",
    ("CKV_K8S_15", "any"): "tags are versions, so a pulled image is the right one",
    ("CKV_K8S_9", "StatefulSet"): "the meter has no readiness: its server serves without it",
    ("CKV_K8S_9", "DaemonSet"): "the meter has no readiness: gateways are told its address",
    ("CKV_K8S_9", "Pod"): "`helm test` runs once",
    ("CKV_K8S_8", "Pod"): "`helm test` runs once",
    ("CKV2_K8S_6", "Pod"): "`helm test` only asks; nobody calls it",
    ("CKV_K8S_35", "Deployment"): "gateway.yaml takes secrets from ${ENV} only",
    ("CKV_K8S_35", "StatefulSet"): "vLLM takes its key from the environment only",
    ("CKV_K8S_26", "DaemonSet"): "gateways reach a node's meter at the node's address",
}


def test_every_way_to_install_is_there():
    ways = ["demo", "external", "full", "ipv6", "minimal", "no-operators", "replicas", "scaled"]
    assert ways == NAMES


@every_ci
def test_lint_finds_nothing(name):
    done = helm("lint", "--strict", CHART, "--values", CHART / "ci" / f"{name}-values.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"\[(WARNING|ERROR)\]", done.stdout), done.stdout


def test_the_defaults_alone_can_be_installed():
    kinds = {tree["kind"] for tree in rendered({})}
    assert {"Deployment", "StatefulSet", "Service", "ConfigMap", "NetworkPolicy"} <= kinds
    # Nothing that a plain cluster does not know.
    assert not kinds & CUSTOM.keys()


@every_ci
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object(name, version, tmp_path):
    plain = [tree for tree in of_ci(name) if tree["kind"] not in CUSTOM]
    hold_against_kubernetes(plain, version, tmp_path)


def _type_errors(objects, tmp_path):
    folder = node_tools()
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    (tmp_path / "objects.ts").write_text(typescript(objects))
    options = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext")
    done = subprocess.run(
        ["node", folder / "node_modules/typescript/bin/tsc", *options, "objects.ts"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    return done.stdout


def _with_a_rule(tmp_path):
    """The chart with a rule file in it, whatever is there now."""
    chart = shutil.copytree(CHART, tmp_path / "chart")
    (chart / "rules").mkdir(exist_ok=True)
    rule = {"alert": "Down", "expr": "up == 0", "for": "5m", "labels": {"severity": "page"}}
    groups = {"groups": [{"name": "mine", "rules": [rule]}]}
    (chart / "rules" / "mine.yaml").write_text(yaml.safe_dump(groups))
    return chart


def test_the_operators_take_their_objects(tmp_path):
    custom = rendered(CHART / "ci" / "full-values.yaml", chart=_with_a_rule(tmp_path))
    custom = [tree for tree in custom if tree["kind"] in CUSTOM]
    assert {tree["kind"] for tree in custom} == CUSTOM.keys()
    assert _type_errors(custom, tmp_path) == ""


def test_that_check_sees_a_misspelt_key(tmp_path):
    monitor = copy.deepcopy(
        next(tree for tree in of_ci("full") if tree["kind"] == "ServiceMonitor")
    )
    monitor["spec"]["endpoints"][0]["intervall"] = "15s"
    assert "'\"intervall\"' does not exist" in _type_errors([monitor], tmp_path)


def test_checkov_finds_only_what_is_meant(tmp_path):
    for name in NAMES:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(of_ci(name)))
    done = subprocess.run(
        [
            *(python_tools() / "checkov", "--directory", tmp_path, "--framework", "kubernetes"),
            *("--compact", "--quiet", "--output", "json", "--skip-download"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 1000
    assert report["summary"]["parsing_errors"] == 0
    failed = {
        (check["check_id"], check["resource"].partition(".")[0])
        for check in report["results"]["failed_checks"]
    }
    explained = {
        (check, kind)
        for check, kind in failed
        if (check, kind) in EXCEPTIONS or (check, "any") in EXCEPTIONS
    }
    assert failed == explained
    needed = {
        key for key in EXCEPTIONS if key in failed or (key[1] == "any" and key[0] in dict(failed))
    }
    assert needed == set(EXCEPTIONS), "an exception that nothing needs any more"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replica": 2}}, "replica"),
        ({"gateway": {"replicas": "two"}}, "replicas"),
        ({"gateway": {"config": {"polcy": "hybrid"}}}, "polcy"),
        ({"gateway": {"config": {"policy": "hybird"}}}, "policy"),
        ({"gateway": {"config": {"timeouts": {"drain_second": 5}}}}, "drain_second"),
        ({"gateway": {"config": {"models": []}}}, "models"),
        ({"gateway": {"resources": {"limit": {}}}}, "limit"),
        ({"modelDefaults": {"gpu": 1}}, "gpu"),
        ({"models": {"phi-3-mini": {"contxt": 4096}}}, "contxt"),
        ({"models": {"phi-3-mini": {"mode": "vlm"}}}, "mode"),
        ({"models": {"phi-3-mini": {"cache": {"size": "forty"}}}}, "size"),
        ({"models": {"Phi_3": {"model": "x"}}}, "Phi_3"),
        ({"models": {"x": {"mode": "external", "backends": [{"ur": "http://x"}]}}}, "ur"),
        ({"image": {"digest": "0123"}}, "digest"),
        ({"meter": {"mode": "sidecars"}}, "mode"),
        ({"meter": {"daemonset": {"config": {"ledger": []}}}}, "ledger"),
        ({"networkPolicy": {"clients": [{"namespaceSelectors": {}}]}}, "namespaceSelectors"),
        ({"recalibration": {"window": "6 hours"}}, "window"),
        ({"securityContext": {"readOnlyRootFileSystem": True}}, "readOnlyRootFileSystem"),
    ],
)
def test_a_misspelt_value_is_refused(values, said):
    done = template(values)
    assert done.returncode != 0
    assert "schema" in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {
                "gateway": {
                    "keda": {"enabled": True, "serverAddress": "http://p:9090", "query": "up"},
                    "autoscaling": {"enabled": True},
                }
            },
            "cannot both be enabled",
        ),
        ({"gateway": {"keda": {"enabled": True}}}, "serverAddress"),
        (
            {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}},
            "minReplicas is above",
        ),
        (
            {"gateway": {"autoscaling": {"enabled": True, "cpuPercent": 0}}},
            "needs `cpuPercent` or `inflight`",
        ),
        ({"modelDefaults": {"enabled": False}}, "none is enabled"),
        ({"models": {"x": {"mode": "external"}}}, "models.x: mode external needs `backends`"),
        ({"models": {"x": {"backends": [{"url": "http://x"}]}}}, "for mode external"),
        ({"models": {"x": {"mode": "simulator"}}}, "knows phi-3-mini, mistral-7b and falcon-7b"),
        ({"models": {"x": {}}}, "models.x: mode vllm needs `model`"),
        ({"models": {"phi-3-mini": {"cache": {"type": "claim"}}}}, "cache.claim"),
        ({"recalibration": {"enabled": True}}, "needs `prometheus`"),
        ({"httpRoute": {"enabled": True}}, "needs `parentRefs`"),
        ({"profile": {"data": '{"model": {}}'}}, "profile.json is not a profile"),
        ({"profile": {"shadow": "no JSON"}}, "shadow.json is not a profile"),
    ],
)
def test_values_that_do_not_go_together_are_refused_with_the_reason(values, said):
    done = template(values)
    assert done.returncode != 0
    assert said in done.stderr


def test_readme_schema_and_copies_are_those_the_values_give():
    done = subprocess.run(
        [sys.executable, CHART / "generate.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_holds_what_it_needs_and_no_more(tmp_path):
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tgz")
    shutil.unpack_archive(archive, tmp_path)
    inside = {
        str(path.relative_to(tmp_path / "joulegate"))
        for path in (tmp_path / "joulegate").rglob("*")
        if path.is_file()
    }
    assert {"files/publish.py", "files/falcon-7b.jinja", "values.schema.json"} <= inside
    assert not [name for name in inside if name.startswith("ci/")]
    assert {name for name in inside if name.endswith(".py")} == {
        *("files/publish.py", "files/joulegate_counters.py", "files/joulegate_draining.py")
    }
    same = rendered({}, chart=tmp_path / "joulegate")
    assert without_drawn(same) == without_drawn(rendered({}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n", "a: has no comment"),
        ("# What.\na:\n  b: 1\n", "a.b: has no comment"),
        ("# What.\na: {}\n", "a: an object needs keys or @schema"),
        ("# What.\na: []\n", "a: a list needs @schema with `items`"),
        ("# What.\na: null\n", "a: null shows no type"),
    ],
)
def test_a_value_without_words_or_type_is_an_error(monkeypatch, text, said):
    monkeypatch.syspath_prepend(CHART)
    import generate

    with pytest.raises(generate.ValuesError, match=re.escape(said)):
        generate.closed(generate.read(text))


def test_no_object_of_the_schema_takes_unknown_keys():
    schema = json.loads((CHART / "values.schema.json").read_text())
    open_ones = []

    def walk(shape, path):
        if isinstance(shape, list):
            for place, item in enumerate(shape):
                walk(item, f"{path}[{place}]")
        elif isinstance(shape, dict):
            if shape.get("type") == "object" and "additionalProperties" not in shape:
                open_ones.append(path)
            for key, item in shape.items():
                walk(item, f"{path}.{key}")

    walk(schema, "")
    # What is Kubernetes' own and deeper than one level, and what a parent chart passes on.
    kubernetes = re.compile(
        r"\.properties\.global|\.definitions\."
        r"(affinity|behavior|env|initContainer|peer|podSecurityContext|securityContext|volume)\b"
    )
    assert [path for path in open_ones if not kubernetes.match(path)] == []
