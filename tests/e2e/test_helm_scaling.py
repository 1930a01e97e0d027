"""The chart's gateways in numbers: how many, on which nodes, and how one follows another."""

import pytest
import yaml

from tests.e2e.helm_tools import of_ci, one, rendered, template

KEDA = {"enabled": True, "serverAddress": "http://p:9090"}


@pytest.mark.parametrize(
    ("values", "replicas", "budget"),
    [
        ({"replicas": 1}, 1, False),
        ({"replicas": 2}, 2, True),
        ({"replicas": 0}, 0, False),
        ({"replicas": 3, "podDisruptionBudget": {"enabled": False}}, 3, False),
        ({"replicas": 1, "autoscaling": {"enabled": True}}, None, True),
        ({"autoscaling": {"enabled": True, "minReplicas": 1, "maxReplicas": 1}}, None, False),
        ({"keda": {**KEDA, "query": "vector(2)"}}, None, True),
    ],
)
def test_replicas_are_the_scaler_s_where_there_is_one_and_a_budget_never_stops_a_drain(
    values, replicas, budget
):
    objects = rendered({"gateway": values})
    assert one(objects, "Deployment")["spec"].get("replicas") == replicas
    budgets = [tree for tree in objects if tree["kind"] == "PodDisruptionBudget"]
    assert bool(budgets) is budget
    for each in budgets:
        assert each["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in each["spec"]


def test_scaling_by_cpu_and_by_streams_in_flight():
    scaled = {"enabled": True, "inflight": 150}
    metrics = one(rendered({"gateway": {"autoscaling": scaled}}), "HorizontalPodAutoscaler")[
        "spec"
    ]["metrics"]
    assert [metric["type"] for metric in metrics] == ["Resource", "Pods"]
    assert metrics[1]["pods"]["metric"]["name"] == "joulegate_backend_inflight"
    (trigger,) = one(of_ci("full"), "ScaledObject")["spec"]["triggers"]
    wanted = 'sum(joulegate_backend_inflight{namespace="llm",service="jg-gate"})'
    assert trigger["metadata"]["query"] == wanted


@pytest.mark.parametrize(
    ("keda", "monitored", "said"),
    [
        ({}, False, "needs `monitoring.serviceMonitor`"),
        ({"minReplicas": 0}, True, "minReplicas 0 needs a `query`"),
        ({"minReplicas": 9, "maxReplicas": 3}, True, "minReplicas is above"),
        ({}, True, None),
        ({"query": "vector(1)", "minReplicas": 0}, False, None),
    ],
)
def test_keda_is_asked_only_what_can_be_answered(keda, monitored, said):
    values = {"gateway": {"keda": {**KEDA, **keda}}, "monitoring": {"serviceMonitor": monitored}}
    done = template(values)
    if said:
        assert done.returncode != 0
        assert said in done.stderr
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("gateway", "away", "more"),
    [
        ({}, 0, 1),
        # Where each node has its pod a further one would wait for ever.
        ({"antiAffinity": "hard"}, 1, 0),
        ({"antiAffinity": "hard", "affinity": {"nodeAffinity": {}}}, 0, 1),
    ],
)
def test_a_rollout_can_end(gateway, away, more):
    strategy = one(rendered({"gateway": gateway}), "Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": away, "maxSurge": more}


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 1800 + 600),
        ({"models": {"falcon-7b": {"startupSeconds": 5400}}}, 5400 + 600),
        ({"models": {"falcon-7b": {"startupSeconds": 5400, "enabled": False}}}, 1800 + 600),
        ({"modelDefaults": {"mode": "simulator"}}, 600),
    ],
)
def test_a_rollout_may_take_as_long_as_loading_a_model(values, seconds):
    assert one(rendered(values), "Deployment")["spec"]["progressDeadlineSeconds"] == seconds


def test_distance_between_pods_is_wished_demanded_or_neither():
    def spec(values):
        return one(rendered({"gateway": values}), "Deployment")["spec"]["template"]["spec"]

    soft = spec({})
    assert "preferredDuringSchedulingIgnoredDuringExecution" in soft["affinity"]["podAntiAffinity"]
    assert soft["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"
    hard = spec({"antiAffinity": "hard", "zoneSpread": "hard"})
    assert "requiredDuringSchedulingIgnoredDuringExecution" in hard["affinity"]["podAntiAffinity"]
    assert hard["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "DoNotSchedule"
    none = spec({"antiAffinity": "none", "zoneSpread": "none"})
    assert not {"affinity", "topologySpreadConstraints"} & none.keys()


def test_a_model_comes_and_goes_and_its_gateways_know_all_that_may_be():
    objects = of_ci("scaled")
    text = one(objects, "ConfigMap", "jg-joulegate-config")["data"]["gateway.yaml"]
    models = {model["name"]: model for model in yaml.safe_load(text)["models"]}
    assert len(models["phi-3-mini"]["backends"]) == 4
    # Where one is always there nothing waits.
    assert "wake_seconds" not in models["phi-3-mini"]
    assert models["mistral-7b"]["wake_seconds"] == 600
    servers = one(objects, "StatefulSet", "jg-joulegate-mistral-7b")["spec"]
    assert "replicas" not in servers
    # What was downloaded is there when it wakes.
    assert servers["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Retain"
    scaled = one(objects, "ScaledObject", "jg-joulegate-mistral-7b")["spec"]
    assert scaled["scaleTargetRef"]["kind"] == "StatefulSet"
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (0, 2)
    (trigger,) = scaled["triggers"]
    for series in ("joulegate_backend_inflight", "joulegate_requests_held"):
        selected = f'{series}{{namespace="llm", service="jg-joulegate", model="mistral-7b"}}'
        assert selected in trigger["metadata"]["query"]
    budgets = [tree["metadata"]["name"] for tree in objects if "Budget" in tree["kind"]]
    assert "jg-joulegate-phi-3-mini" in budgets


@pytest.mark.parametrize(
    ("scaling", "monitored", "said"),
    [
        ({}, True, "needs `serverAddress`"),
        ({"serverAddress": "http://p"}, False, "needs `monitoring.serviceMonitor`"),
        ({"serverAddress": "http://p", "minReplicas": 3}, True, "minReplicas is above"),
    ],
)
def test_a_model_is_scaled_only_by_what_can_be_asked(scaling, monitored, said):
    scaled = {"autoscaling": {"enabled": True, **scaling}}
    values = {"modelDefaults": scaled, "monitoring": {"serviceMonitor": monitored}}
    done = template(values)
    assert done.returncode != 0
    assert said in done.stderr
