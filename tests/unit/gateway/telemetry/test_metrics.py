"""The metrics: the contract's names and labels, sums that add up, labels from the config only."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from backends.registry import Backend, Deployment
from gateway.scheduling.decision import MetricWeights, RoutingDecision, ScoredCandidate
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.request_stages import CallerIdentity
from tests.unit.gateway.telemetry.request_records import make_record

# DESIGN section 7: the gateway's; the meter's own and the regression sums have tests of their own.
CONTRACT = {
    "requests_total": {"model", "requested", "code", "stream", "tenant"},
    "request_duration_seconds": {"model"},
    "time_to_first_token_seconds": {"model"},
    "time_per_output_token_seconds": {"model"},
    "request_energy_joules": {"model", "method"},
    "energy_joules_total": {"model", "method", "tenant", "preset"},
    "predicted_duration_seconds": {"model"},
    "request_predicted_energy_joules": {"model"},
    "predicted_energy_joules_total": {"model", "tenant", "preset"},
    "baseline_energy_joules_total": {"baseline", "tenant", "preset"},
    "tokens_total": {"model", "type", "tenant", "preset"},
    "decisions_total": {"model", "policy", "preset"},
    "decision_duration_seconds": set(),
    "exclusions_total": {"model", "reason"},
    "backend_up": {"model", "backend"},
    "backend_inflight": {"model", "backend"},
    "backend_ejections_total": {"model", "backend"},
    "retries_total": {"model", "reason"},
    "client_disconnects_total": set(),
    "streams_broken_total": {"model", "reason"},
    "profile_info": {"model", "version"},
    "profile_reloads_total": {"result"},
}
HISTOGRAMS = {
    name for name in CONTRACT if not name.endswith(("_total", "_info", "_up", "_inflight"))
}


def enter(metrics, finished):
    metrics.count_finished_request(finished)
    metrics.count_energy(finished.model, finished.settled)


def scored(model, accuracy, joules):
    return ScoredCandidate(
        model, model, 0.1, accuracy, 1.0, joules, (0, 0, 0), (0, 0, 0), 0, 0, 9, 9, False
    )


DECISION = RoutingDecision(
    "fair-ols",
    MetricWeights(0, 1, 0),
    (scored("m", 0.6, 40.0), scored("n", 0.7, 50.0), scored("p", 0.5, 90.0)),
    (),
    True,
    "v",
)


def record(**more):
    fields = {
        "id": "r", "at": 1.0, "kind": "chat", "requested": "auto", "preset": "default",
        "stream": True, "model": "m", "deployment": "m", "backend": "a:1", "code": 200,
        "prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 4, "seconds": 2.0,
        "ttft_seconds": 0.4, "predicted_seconds": 1.5, "predicted_joules": 40.0, "joules": 44.0,
        "method": "estimated", "decision": DECISION,
    }  # fmt: skip
    return make_record(**{**fields, **more})


def backends(*roots):
    rng = random.Random(0)
    return Deployment("m", "m", "m", [Backend(root) for root in roots], rng=rng)


def samples(metrics):
    """Return every sample of the page as Prometheus reads it."""
    text = generate_latest(metrics.registry).decode()
    return [s for family in text_string_to_metric_families(text) for s in family.samples]


def value(metrics, name, **labels):
    # Whose it is has a test of its own.
    whose = {"tenant", "preset"} - labels.keys()
    found = [
        s.value
        for s in samples(metrics)
        if s.name == f"joulegate_{name}"
        and {label: of for label, of in s.labels.items() if label not in whose} == labels
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


@pytest.fixture
def metrics():
    return GatewayMetrics(CollectorRegistry())


@pytest.fixture
def used(metrics):
    """Metrics of which every one has been touched."""
    enter(metrics, record())
    metrics.fleet.publish_backends([backends("http://a:1")])
    metrics.profile.publish_profile({"m": "v1"})
    metrics.decision_count("m", "fair-ols", "default").inc()
    metrics.decision_duration.observe(0.00004)
    metrics.exclusion_count("m", "down").inc()
    metrics.retry_count("m", "silent").inc()
    metrics.broken_count("m", "connection_lost").inc()
    metrics.disconnects.inc()
    return metrics


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_the_contracts_metrics_are_there_with_exactly_their_labels(used, name):
    wire = f"joulegate_{name}_bucket" if name in HISTOGRAMS else f"joulegate_{name}"
    found = [set(s.labels) - {"le"} for s in samples(used) if s.name == wire]
    assert found, f"{wire} is not on the page"
    assert all(labels == CONTRACT[name] for labels in found)


def test_the_page_has_one_prefix_and_no_series_twice(used):
    found = samples(used)
    assert all(s.name.startswith("joulegate_") for s in found)
    series = Counter((s.name, tuple(sorted(s.labels.items()))) for s in found)
    assert series.most_common(1)[0][1] == 1
    assert not any(s.name.endswith("_created") for s in found)


def test_every_family_says_what_it_is(used):
    text = generate_latest(used.registry).decode()
    for name in CONTRACT:
        assert f"# HELP joulegate_{name} " in text
        assert f"# TYPE joulegate_{name} " in text


def test_buckets_suit_llm_times_and_energies(used):
    def bounds(name):
        wire = f"joulegate_{name}_bucket"
        return sorted(float(s.labels["le"]) for s in samples(used) if s.name == wire)[:-1]

    for name in ("request_duration_seconds", "predicted_duration_seconds"):
        assert (bounds(name)[0], bounds(name)[-1]) == (0.005, 600.0)
    for name in ("request_energy_joules", "request_predicted_energy_joules"):
        assert (bounds(name)[0], bounds(name)[-1]) == (0.1, 100_000.0)


def test_a_whole_stream_is_counted(metrics):
    enter(metrics, record())
    labels = {"model": "m", "requested": "auto", "code": "200", "stream": "true"}
    assert value(metrics, "requests_total", **labels) == 1
    assert value(metrics, "request_duration_seconds_sum", model="m") == 2.0
    assert value(metrics, "time_to_first_token_seconds_sum", model="m") == 0.4
    # 1.6 s for the four tokens after the first
    assert value(metrics, "time_per_output_token_seconds_sum", model="m") == pytest.approx(0.4)
    for kind, tokens in (("prompt", 10), ("cached", 4), ("completion", 5)):
        assert value(metrics, "tokens_total", model="m", type=kind) == tokens
    assert value(metrics, "energy_joules_total", model="m", method="estimated") == 44.0
    assert value(metrics, "request_energy_joules_sum", model="m", method="estimated") == 44.0
    assert value(metrics, "predicted_duration_seconds_sum", model="m") == 1.5
    assert value(metrics, "request_predicted_energy_joules_sum", model="m") == 40.0
    assert value(metrics, "predicted_energy_joules_total", model="m") == 40.0


def test_the_baselines_are_what_others_were_predicted_to_spend(metrics):
    for _ in range(2):
        enter(metrics, record())
    found = {
        s.labels["baseline"]: s.value
        for s in samples(metrics)
        if s.name == "joulegate_baseline_energy_joules_total"
    }
    # the most accurate is n at 50 J, the hungriest p at 90 J
    assert found == {
        "chosen": 80.0, "most-accurate": 100.0, "cheapest": 80.0, "hungriest": 180.0,
    }  # fmt: skip


def test_counters_say_who_spent_it_and_histograms_do_not(metrics):
    for tenant in ("search", "search", "ads"):
        one = record()
        one.received = replace(one.received, caller=CallerIdentity("key_1", tenant))
        metrics.count_finished_request(one)
        metrics.count_energy(one.model, one.settled, one.tenant, one.target.preset)
    metrics.count_unattributed_energy("m", "idle", 5.0)
    preset = record().target.preset
    whose = {"tenant": "search", "preset": preset}
    for name, labels, each in (
        ("tokens_total", {"model": "m", "type": "prompt"}, record().served.prompt_tokens),
        ("predicted_energy_joules_total", {"model": "m"}, 40.0),
        ("baseline_energy_joules_total", {"baseline": "hungriest"}, 90.0),
    ):
        assert value(metrics, name, **labels, **whose) == 2 * each
        assert value(metrics, name, **labels, **whose | {"tenant": "ads"}) == each
    idle = {"model": "m", "method": "idle", "tenant": "none", "preset": "none"}
    assert value(metrics, "energy_joules_total", **idle) == 5.0
    for family in metrics.registry.collect():
        if family.type == "histogram":
            assert all("tenant" not in s.labels for s in family.samples)


def test_a_request_whose_client_named_the_model_is_no_saving(metrics):
    one = record()
    decision = one.planned.decision._replace(policy="none")
    one.planned = replace(one.planned, decision=decision)
    enter(metrics, one)
    assert not any(
        s.value for s in samples(metrics) if s.name == "joulegate_baseline_energy_joules_total"
    )


def test_a_broken_answer_has_spent_but_was_not_answered(metrics):
    enter(metrics, record(code=502))
    names = {s.name for s in samples(metrics) if s.value and s.labels.get("model") == "m"}
    assert "joulegate_energy_joules_total" in names
    assert "joulegate_request_duration_seconds_count" not in names
    assert "joulegate_predicted_energy_joules_total" not in names


def test_one_token_has_no_time_between_tokens(metrics):
    enter(metrics, record(completion_tokens=1))
    assert value(metrics, "time_per_output_token_seconds_count", model="m") == 0


def test_a_request_that_reached_no_model(metrics):
    enter(metrics, record(model="", code=404, requested="other", stream=False, decision=None))
    labels = {"model": "none", "requested": "other", "code": "404", "stream": "false"}
    assert value(metrics, "requests_total", **labels) == 1


outcomes = st.tuples(
    st.sampled_from(["", "m", "n"]),
    st.sampled_from(["auto", "auto:eco", "m", "other"]),
    st.sampled_from([200, 400, 404, 499, 502]),
    st.booleans(),
)


@given(st.lists(outcomes, max_size=40))
def test_requests_add_up(drawn):
    metrics = GatewayMetrics(CollectorRegistry())
    for model, requested, code, stream in drawn:
        enter(metrics, record(model=model, requested=requested, code=code, stream=stream))
    counted = {
        tuple(s.labels[name] for name in ("model", "requested", "code", "stream")): s.value
        for s in samples(metrics)
        if s.name == "joulegate_requests_total"
    }
    wanted = Counter((m or "none", r, str(c), str(s).lower()) for m, r, c, s in drawn)
    assert counted == wanted
    assert sum(counted.values()) == len(drawn)


def test_backends_as_they_are_now(metrics):
    deployment = backends("http://a:1", "http://b:2")
    one, two = deployment.backends
    one.begin_request()
    for _ in range(5):
        two.record_failure()
    for _ in range(3):  # a page may be fetched any number of times
        metrics.fleet.publish_backends([deployment])
    for label, up, inflight, ejections in (("a:1", 1, 1, 0), ("b:2", 0, 0, 1)):
        assert value(metrics, "backend_up", model="m", backend=label) == up
        assert value(metrics, "backend_inflight", model="m", backend=label) == inflight
        assert value(metrics, "backend_ejections_total", model="m", backend=label) == ejections


def test_one_profile_is_in_force(metrics):
    metrics.profile.publish_profile({"m": "v1", "n": "v1"})
    metrics.profile.publish_profile({"m": "v2", "n": "v2"})
    found = {
        (s.labels["model"], s.labels["version"]): s.value
        for s in samples(metrics)
        if s.name == "joulegate_profile_info"
    }
    assert found == {("m", "v2"): 1.0, ("n", "v2"): 1.0}


def test_reloads_start_at_zero(metrics):
    for result in ("adopted", "refused"):
        assert value(metrics, "profile_reloads_total", result=result) == 0
