"""Which places are offered, from plain values; and who is chosen among them."""

import pytest

from gateway.scheduling.candidate import DeploymentOption, RoutingCandidate
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.decide import make_decision
from gateway.scheduling.decision import MetricWeights, PredictionBounds
from gateway.scheduling.features import OutputModel, RequestFeatures
from gateway.scheduling.placement import (
    BackendView,
    PlacementMode,
    PlacementRules,
    find_capacity,
    find_places,
)
from gateway.scheduling.reference_load import ReferenceLoad

# Qwen3-14B on an H100 (ML.ENERGY leaderboard, 2026-02):
# J/token 0.0879 + 5.33/(1+r), ms/token 11.7 + 0.112 r
SECONDS = CostFunction(
    CostQuantity.SECONDS, RegressionForm.LOAD, (0.0, 1e-5, 11.7e-3, 0.0, 0.112e-3)
)
JOULES = CostFunction(CostQuantity.JOULES, RegressionForm.LOAD, (0.0, 0.01, 0.0879, 0.0, 5.33))
FLAT_SECONDS = CostFunction(CostQuantity.SECONDS, RegressionForm.ADDITIVE, (0.0, 0.0, 0.01))
FLAT_JOULES = CostFunction(CostQuantity.JOULES, RegressionForm.ADDITIVE, (0.0, 0.0, 1.0))
DEFAULT = MetricWeights.from_values(0.5, 0.3, 0.2)


def views(*running, **more):
    return [BackendView(f"b{at}", count, **more) for at, count in enumerate(running)]


def places(seen, tokens_in=100, **rules):
    found = find_places(
        seen, SECONDS,
        tokens_in=tokens_in, tokens_out=300, rules=PlacementRules(**rules),
    )  # fmt: skip
    return [(place.backend, place.why) for place in found]


def test_the_cap_is_where_time_per_token_is_a_fifth_longer():
    assert find_capacity(SECONDS, 100, 1.2) == 20
    assert SECONDS.cost_per_output_token(100, 20) <= 1.2 * SECONDS.cost_per_output_token(100, 0)
    assert SECONDS.cost_per_output_token(100, 21) > 1.2 * SECONDS.cost_per_output_token(100, 0)


def test_the_fullest_within_the_cap_and_the_emptiest():
    assert places(views(3, 12, 0, 5)) == [("b1", "fullest"), ("b2", "emptiest")]
    assert places(views(3, 21, 0, 9)) == [("b3", "fullest"), ("b2", "emptiest")]
    assert places(views(30, 25, 22)) == [("b2", "emptiest")]
    assert places(views(0, 0)) == [("b0", "fullest")]


def test_gateways_agree_on_the_first_of_those_about_as_full_and_keep_a_clear_lead():
    assert places(views(4, 5, 6))[0] == ("b0", "fullest")
    assert places(views(0, 9))[0] == ("b1", "fullest")


def test_a_queue_a_backlog_or_a_full_cache_closes_a_backend():
    closed = [
        BackendView("b0", 9, queued=1),
        BackendView("b0", 9, cache_usage=0.95),
        BackendView("b0", 9, prompt_tokens=16_000),
        BackendView("b0", 9, usable=False),
    ]
    for one in closed:
        found = places([one, BackendView("b1", 2), BackendView("b2", 0)], tokens_in=500)
        assert ("b0", "fullest") not in found
        assert found[0] == ("b1", "fullest")
    # A prompt beyond the bound may go where no other waits.
    assert places(views(9, 0), tokens_in=50_000)[0] == ("b0", "fullest")


def test_the_modes():
    seen = views(3, 12, 0)
    assert places(seen, mode=PlacementMode.PACK) == [("b1", "fullest")]
    assert places(seen, mode=PlacementMode.SPREAD) == [("b2", "emptiest")]


def test_as_many_backends_as_asked_are_kept_in_use():
    assert places(views(5, 0, 0), min_backends=2)[0] == ("b1", "fullest")
    assert places(views(5, 1, 0), min_backends=2)[0] == ("b0", "fullest")


def test_what_others_may_have_sent_since_the_gauges_were_read_counts():
    fresh = [BackendView("b0", 18, others=6, seen=12), BackendView("b1", 0)]
    stale = [BackendView("b0", 18, others=6, seen=12, age_seconds=3.0), BackendView("b1", 0)]
    assert places(fresh)[0] == ("b0", "fullest")
    assert places(stale)[0] == ("b1", "fullest")


def test_a_burst_that_is_counted_at_once_is_not_put_on_one_backend():
    running = [0, 0, 0, 0]
    for _ in range(60):
        found = find_places(
            views(*running), SECONDS,
            tokens_in=100, tokens_out=300, rules=PlacementRules(),
        )  # fmt: skip
        running[int(found[0].backend[1:])] += 1
    assert running == [21, 21, 18, 0]


def test_without_a_load_term_there_is_nothing_to_choose():
    assert option().depends_on_load
    assert not DeploymentOption(
        "m", "m", 0.7, FLAT_SECONDS, FLAT_JOULES, context=100
    ).depends_on_load
    assert places(views(0, 0, usable=False)) == []


def option(name="m", joules=JOULES):
    return DeploymentOption(
        name, name, 0.7, SECONDS, joules, context=32_768, output=OutputModel(mu=5.4, sigma=0.6)
    )


def chosen(seen, weights, reference=None):
    found = find_places(seen, SECONDS, tokens_in=100, tokens_out=300, rules=PlacementRules())
    candidate = RoutingCandidate(option(), places=found)
    return make_decision(
        RequestFeatures(100), [candidate], weights, reference_load=reference
    ).best_candidate


@pytest.mark.parametrize(
    ("weights", "backend"),
    [
        (DEFAULT, "b1"),
        (MetricWeights.from_values(0.1, 0.8, 0.1), "b1"),
        (MetricWeights.from_values(energy=1), "b1"),
        (MetricWeights.from_values(time=1), "b2"),
    ],
)
def test_energy_packs_and_time_spreads(weights, backend):
    best = chosen(views(3, 12, 0), weights)
    assert best.backend == backend
    assert [place.why for place in best.places] == ["fullest", "emptiest"]
    here = next(place for place in best.places if place.backend == backend)
    assert (best.predicted_joules, best.predicted_seconds) == (
        here.predicted_joules,
        here.predicted_seconds,
    )


def bounded(weights, **bounds):
    found = find_places(
        views(3, 20, 0), SECONDS, tokens_in=100, tokens_out=300, rules=PlacementRules()
    )
    candidate = RoutingCandidate(option(), places=found)
    limits = PredictionBounds(**bounds)
    return make_decision(
        RequestFeatures(100, 200, min_tokens=200), [candidate], weights, bounds=limits
    )


def test_a_bound_that_one_place_breaks_sends_the_request_to_the_other():
    # 200 tokens: 2.79 s and 70 J beside twenty, 2.34 s and 1,085 J alone.
    got = bounded(DEFAULT, max_latency_ms=2500)
    assert (got.best_candidate.backend, got.feasible, got.excluded) == ("b2", True, ())
    assert got.best_candidate.predicted_seconds < 2.5
    got = bounded(MetricWeights.from_values(time=1), max_energy_joules=100)
    assert (got.best_candidate.backend, got.feasible, got.excluded) == ("b1", True, ())
    assert got.best_candidate.predicted_joules < 100


def test_bounds_that_every_place_breaks_leave_the_least_bad_one():
    got = bounded(DEFAULT, max_latency_ms=2000)
    assert (got.best_candidate.backend, got.feasible) == ("b2", False)
    (out,) = got.excluded
    assert out.reason.startswith("bound: max_latency_ms 23")
    got = bounded(DEFAULT, max_latency_ms=2500, max_energy_joules=100)
    assert (got.best_candidate.backend, got.feasible) == ("b1", False)


def test_models_are_compared_at_one_load_whoever_has_the_traffic():
    dear = CostFunction(CostQuantity.JOULES, RegressionForm.LOAD, (0.0, 0.01, 0.1, 0.0, 8.0))
    for busy, idle in ((15, 0), (0, 15)):
        fleet = []
        for name, joules, running in (("cheap", JOULES, idle), ("dear", dear, busy)):
            found = find_places(
                views(running, 0), SECONDS,
                tokens_in=100, tokens_out=300, rules=PlacementRules(),
            )  # fmt: skip
            fleet.append(RoutingCandidate(option(name, joules), places=found))
        got = make_decision(
            RequestFeatures(100), fleet, MetricWeights.from_values(energy=1), reference_load=5.0
        )
        assert got.best_candidate.model == "cheap"
        by_model = {one.model: one.reference_joules for one in got.candidates}
        assert by_model["dear"] / by_model["cheap"] == pytest.approx(1.46, abs=0.03)
        # At each one's own load the one with the traffic would look cheap.
    own = make_decision(RequestFeatures(100), fleet, MetricWeights.from_values(energy=1))
    assert own.reference_load is None


def test_the_reference_load_is_the_time_mean_over_requests():
    load = ReferenceLoad(600.0)
    assert load.value == 0.0
    load.add([4, 0], 0.0)
    for second in range(1, 11):
        load.add([4, 0], float(second))
    assert load.value == pytest.approx(3.0)
    for second in range(11, 21):
        load.add([1, 1], float(second))
    # 10 s x 4 requests with 3 beside each, 10 s x 2 with none
    assert load.value == pytest.approx(2.0)
    for second in range(21, 1000):
        load.add([0, 0], float(second))
    assert load.value == 0.0


def held(seen, cached, **rules):
    found = find_places(
        seen, SECONDS,
        tokens_in=100, tokens_out=300, rules=PlacementRules(**rules), cached=cached,
    )  # fmt: skip
    return [(place.backend, place.why, place.cached_tokens) for place in found]


def test_the_holder_of_the_prefix_is_the_third_place():
    assert held(views(3, 12, 0, 5), {"b3": 80}) == [
        ("b1", "fullest", 0), ("b2", "emptiest", 0), ("b3", "prefix", 80),
    ]  # fmt: skip
    assert held(views(3, 12, 0, 5), {"b1": 90, "b3": 60}) == [
        ("b1", "fullest", 90), ("b2", "emptiest", 0),
    ]  # fmt: skip


def test_of_holders_of_about_as_much_the_least_busy_is_offered():
    assert held(views(3, 12, 0, 5), {"b0": 80, "b3": 81})[-1] == ("b0", "prefix", 80)
    assert held(views(3, 12, 0, 5), {"b0": 60, "b3": 81})[-1] == ("b3", "prefix", 81)


def test_a_holder_beyond_its_bounds_is_offered_only_while_it_is_about_as_empty_as_any():
    assert held(views(3, 25, 0), {"b1": 80}) == [("b0", "fullest", 0), ("b2", "emptiest", 0)]
    assert held(views(30, 25, 26), {"b2": 80}) == [("b1", "emptiest", 0), ("b2", "prefix", 80)]
    full = [BackendView("b0", 3), BackendView("b1", 1, cache_usage=0.95), BackendView("b2", 0)]
    assert ("b1", "prefix", 80) not in held(full, {"b1": 80})


def test_pack_and_spread_ask_for_no_holder():
    for mode in (PlacementMode.PACK, PlacementMode.SPREAD):
        assert len(held(views(3, 12, 0, 5), {"b3": 80}, mode=mode)) == 1


def decide(tokens_in, *, seen, cached):
    option = DeploymentOption("m", "m", 0.7, SECONDS, JOULES, 32_768)
    found = find_places(
        seen, SECONDS, tokens_in=tokens_in, tokens_out=300, rules=PlacementRules(), cached=cached
    )
    return make_decision(
        RequestFeatures(tokens_in, 300),
        [RoutingCandidate(option, places=found)],
        DEFAULT,
        reference_load=4.0,
    ).best_candidate


def test_cached_tokens_are_not_charged_where_they_are_held():
    seen = views(3, 14, 0, 11)
    there, without = (decide(10_000, seen=seen, cached=cached) for cached in ({"b3": 9000}, {}))
    assert (without.backend, there.backend) == ("b1", "b3")
    (place,) = (place for place in there.places if place.why == "prefix")
    assert place.cached_tokens == 9000
    assert there.predicted_joules == place.predicted_joules
    alone = decide(10_000, seen=views(11), cached={})
    assert alone.predicted_joules - there.predicted_joules == pytest.approx(9000 * 0.01)
    assert alone.predicted_seconds - there.predicted_seconds == pytest.approx(9000 * 1e-5)
    assert alone.reference_joules - there.reference_joules == pytest.approx(9000 * 0.01)
    assert there.tokens_in == alone.tokens_in


def test_the_last_token_of_a_prompt_is_never_cached():
    costs = {decide(100, seen=views(0), cached={"b0": n}).predicted_joules for n in (99, 5000)}
    assert len(costs) == 1
