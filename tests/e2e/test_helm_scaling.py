"""The chart's gateways in numbers: how many, on which nodes, and how one follows another."""

import pytest

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
