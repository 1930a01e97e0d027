"""The pods of the chart's model servers: how they end, what is beside vLLM, what one may add."""

import os
import shlex
import stat
import subprocess

import yaml

from tests.e2e.helm_tools import CHART, container, of_ci, one, rendered, server
from tests.faults.rollout import READY_SECONDS


def test_the_server_writes_its_counters_down_and_its_meter_reads_them(tmp_path):
    """The server's script, run with a stand-in for what it starts."""
    pod = server(of_ci("full"), "jg-gate-falcon-7b")
    mine, beside = container(pod, "server"), container(pod, "meter")
    (tmp_path / "python3").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python3").chmod(stat.S_IRWXU)
    done = subprocess.run(
        [*mine["command"], *mine["args"]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    said = sorted(shlex.split(line) for line in done.stdout.splitlines())
    assert said == [
        ["-m", "vllm.entrypoints.openai.api_server", *mine["args"]],
        ["/etc/joulegate/joulegate_counters.py", "/run/gpus/counters", "1"],
    ]
    assert {"--source=file", "--device=/run/gpus/counters"} <= set(beside["args"])
    # Nothing of the platform's is asked for but the server's own GPUs.
    assert not beside.get("env")
    assert "nvidia.com/gpu" not in beside["resources"].get("limits", {})
    mounts = {
        each["mountPath"]: each["name"] for box in (mine, beside) for each in box["volumeMounts"]
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/run/gpus"]]["emptyDir"]["medium"] == "Memory"
    scripts = volumes[mounts["/etc/joulegate"]]["configMap"]["name"]
    data = one(of_ci("full"), "ConfigMap", scripts)["data"]
    assert data == {
        name: (CHART / "files" / name).read_text()
        for name in ("joulegate_counters.py", "joulegate_draining.py")
    }


def test_a_server_finishes_what_it_runs_before_it_ends():
    pod = server(rendered({}), "jg-joulegate-falcon-7b")
    mine = container(pod, "server")
    place = mine["args"].index("--middleware")
    module, _, name = mine["args"][place + 1].rpartition(".")
    script = CHART / "files" / f"{module}.py"
    assert f"class {name}:" in script.read_text()
    env = {variable["name"]: variable.get("value") for variable in mine["env"]}
    (mount,) = (each for each in mine["volumeMounts"] if each["name"] == "scripts")
    assert env["PYTHONPATH"] == mount["mountPath"]
    hook = mine["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == ["python3", f"{mount['mountPath']}/{script.name}"]
    assert pod["terminationGracePeriodSeconds"] == 300
    tree = one(rendered({}), "StatefulSet", "jg-joulegate-falcon-7b")
    assert tree["spec"]["minReadySeconds"] > READY_SECONDS
    without = container(
        server(rendered({"modelDefaults": {"drain": False}}), "jg-joulegate-falcon-7b"), "server"
    )
    assert "--middleware" not in without["args"]
    assert "lifecycle" not in without


def test_another_maker_s_gpus_leave_nothing_of_nvidia_s():
    values = {
        "modelDefaults": {
            "gpuResource": "amd.com/gpu",
            "image": {"repository": "rocm/vllm", "tag": "latest"},
        }
    }
    pod = server(rendered(values), "jg-joulegate-falcon-7b")
    assert "nvidia" not in yaml.safe_dump(pod).lower()
    assert container(pod, "server")["resources"]["limits"]["amd.com/gpu"] == 1
    assert pod["tolerations"] == [
        {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


def test_what_a_pod_may_have_of_its_own():
    fetch = {"name": "fetch", "image": "example.org/fetch:1", "command": ["fetch"]}
    values = {
        "modelDefaults": {
            "replicas": 2,
            "volumes": [{"name": "ca", "secret": {"secretName": "ca"}}],
            "volumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
            "initContainers": [fetch],
            "envFrom": [{"secretRef": {"name": "proxy"}}],
            "schedulerName": "volcano",
            "priorityClassName": "models",
        }
    }
    for mode in ("vllm", "simulator"):
        objects = rendered({"modelDefaults": {**values["modelDefaults"], "mode": mode}})
        pod = server(objects, "jg-joulegate-phi-3-mini")
        (first,) = pod["initContainers"]
        assert fetch.items() <= first.items()
        assert first["securityContext"] == container(pod, "server")["securityContext"]
        assert (pod["schedulerName"], pod["priorityClassName"]) == ("volcano", "models")
        assert {"name": "ca", "secret": {"secretName": "ca"}} in pod["volumes"]
        mine = container(pod, "server")
        assert mine["envFrom"] == [{"secretRef": {"name": "proxy"}}]
        assert {"name": "ca", "mountPath": "/etc/ca", "readOnly": True} in mine["volumeMounts"]
        budget = one(objects, "PodDisruptionBudget", "jg-joulegate-phi-3-mini")["spec"]
        assert budget["maxUnavailable"] == 1
        labels = one(objects, "StatefulSet", "jg-joulegate-phi-3-mini")["spec"]["selector"]
        assert budget["selector"] == labels


def test_a_single_server_stops_no_node_s_drain():
    names = [tree["metadata"]["name"] for tree in rendered({}) if "Budget" in tree["kind"]]
    assert names == ["jg-joulegate"]
