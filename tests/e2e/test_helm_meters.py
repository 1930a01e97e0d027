"""A meter on each node: how it comes to see GPUs, and what it does without where it needs none."""

import pytest
import yaml

from tests.e2e.helm_tools import KUBERNETES, hold_against_kubernetes, one, rendered, template

NVML = {"ledgers": [{"name": "gpus", "source": "nvml", "backends": []}]}
DCGM = {"ledgers": [{"name": "gpus", "source": "dcgm", "url": "http://p:9090", "backends": []}]}
FILE = {"ledgers": [{"name": "gpus", "source": "file", "devices": ["/gpus/x"], "backends": []}]}
BACKENDS = [{"url": "http://gpu-1:8000", "meter": "http://gpu-1:9464"}]


def values_of(**daemonset):
    external = {"mode": "external", "backends": BACKENDS}
    others = {name: {"enabled": False} for name in ("mistral-7b", "falcon-7b")}
    return {
        "models": {"phi-3-mini": external, **others},
        "meter": {"mode": "daemonset", "daemonset": daemonset},
    }


def template_of(**daemonset):
    return one(rendered(values_of(**daemonset)), "DaemonSet")["spec"]["template"]


def variables(pod):
    return {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}


@pytest.mark.parametrize("config", [{}, NVML])
def test_nvidia_s_runtime_is_told_by_a_variable(config):
    pod = template_of(config=config, runtimeClassName="nvidia")["spec"]
    assert variables(pod)["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert [each["key"] for each in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert "privileged" not in pod["containers"][0]["securityContext"]


def test_under_cdi_it_asks_as_the_gpu_operator_s_own_pods_do():
    made = template_of(config=NVML, access="cdi")
    device = made["metadata"]["annotations"]["nvidia.cdi.k8s.io/container.meter"]
    assert device == "management.nvidia.com/gpu=all"
    assert not [name for name in variables(made["spec"]) if "NVIDIA" in name]


def test_without_any_runtime_it_is_privileged_and_takes_the_node_s_driver():
    labels = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    pod = template_of(config=NVML, access="host", nodeSelector=labels)["spec"]
    (meter,) = pod["containers"]
    security = meter["securityContext"]
    assert security["privileged"]
    # Kubernetes refuses a privileged container that may not escalate.
    assert security["allowPrivilegeEscalation"]
    assert security["readOnlyRootFilesystem"]
    (volume,) = (each for each in pod["volumes"] if each["name"] == "driver")
    assert volume["hostPath"]["path"] == "/home/kubernetes/bin/nvidia"
    (mount,) = (each for each in meter["volumeMounts"] if each["name"] == "driver")
    assert variables(pod)["LD_LIBRARY_PATH"] == f"{mount['mountPath']}/lib64"
    assert pod["nodeSelector"] == labels


@pytest.mark.parametrize("config", [DCGM, FILE])
@pytest.mark.parametrize("access", ["runtime", "cdi", "host"])
def test_one_that_reads_no_gpu_is_given_none(config, access):
    made = template_of(config=config, access=access)
    pod = made["spec"]
    assert not [name for name in variables(pod) if name not in {"NODE_IP", "NODE_NAME"}]
    assert "privileged" not in pod["containers"][0]["securityContext"]
    assert list(made["metadata"]["annotations"]) == ["checksum/config"]


def test_on_amd_s_nodes_nothing_of_nvidia_s_is_left():
    gpus = {"name": "gpus", "hostPath": {"path": "/run/gpus", "type": "Directory"}}
    pod = template_of(
        config=FILE,
        access="none",
        nodeSelector={"feature.node.kubernetes.io/amd-gpu": "true"},
        tolerations=[{"key": "amd.com/gpu", "operator": "Exists"}],
        volumes=[gpus],
        volumeMounts=[{"name": "gpus", "mountPath": "/gpus", "readOnly": True}],
    )["spec"]
    assert "nvidia" not in yaml.safe_dump(pod).lower()
    assert gpus in pod["volumes"]


@pytest.mark.parametrize(
    ("config", "named"),
    [({}, "default"), ({"ledgers": [DCGM["ledgers"][0], NVML["ledgers"][0]]}, "gpus")],
)
def test_one_that_would_find_no_gpu_is_refused(config, named):
    done = template(values_of(config=config, access="none"))
    assert done.returncode != 0
    assert f'access none, but ledger "{named}" of `config` reads NVML' in done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_each_way(version, tmp_path):
    ways = [{"config": NVML, "access": each} for each in ("runtime", "cdi", "host")]
    objects = [rendered(values_of(**way)) for way in [*ways, {"config": DCGM, "access": "none"}]]
    hold_against_kubernetes([tree for each in objects for tree in each], version, tmp_path)
