"""Who is left out of a ranking and why: capability, context, down, and the hard bounds."""

import pytest

from gateway.scheduling.cost import COST_FLOOR, CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.decide import DeploymentOption, RoutingCandidate, make_decision
from gateway.scheduling.decision import MetricWeights, PredictionBounds
from gateway.scheduling.features import OutputModel, RequestFeatures

CHAT = frozenset({"chat"})


def option(name, accuracy=0.5, joules=10.0, seconds=1.0, **more):
    return DeploymentOption(
        model=name,
        deployment=name,
        accuracy=accuracy,
        seconds=CostFunction(CostQuantity.SECONDS, RegressionForm.ADDITIVE, (seconds, 0.0, 0.0)),
        joules=CostFunction(CostQuantity.JOULES, RegressionForm.ADDITIVE, (joules, 0.0, 0.0)),
        capabilities=more.pop("capabilities", CHAT),
        context=more.pop("context", 4096),
        **more,
    )


def excluded(features, *candidates, **more):
    decision = make_decision(features, candidates, MetricWeights.from_values(1, 1, 1), **more)
    return {out.model: (out.code, out.reason) for out in decision.excluded}, decision


def test_what_a_request_needs_must_be_offered():
    able = RoutingCandidate(option("able", capabilities=frozenset({"chat", "tools", "images"})))
    out, decision = excluded(
        RequestFeatures(5, needs=frozenset({"chat", "tools", "images"})),
        able,
        RoutingCandidate(option("plain")),
    )
    assert out == {"plain": ("capability", "capability: does not offer images, tools")}
    assert [scored.model for scored in decision.candidates] == ["able"]


@pytest.mark.parametrize(
    ("tokens_in", "asked", "fits"),
    [(60, 40, True), (60, 41, False), (100, 1, False), (99, 1, True), (10, None, False)],
)
def test_the_context_must_hold_prompt_and_asked_output(tokens_in, asked, fits):
    out, decision = excluded(
        RequestFeatures(tokens_in, asked, needs=CHAT), RoutingCandidate(option("m", context=100))
    )
    if fits:
        assert out == {}
    else:
        text = f"context: {tokens_in} tokens in and {asked or 110} out exceed 100"
        assert out == {"m": ("context", text)}
        assert decision.best_candidate is None


def test_the_context_is_in_the_models_own_tokens():
    out, _ = excluded(
        RequestFeatures(60, 10, needs=CHAT),
        RoutingCandidate(option("wordy", context=100, ratio=1.6)),
        RoutingCandidate(option("terse", context=100, ratio=1.4)),
    )
    assert out == {"wordy": ("context", "context: 96 tokens in and 10 out exceed 100")}


def test_a_lenient_request_is_not_held_to_the_context():
    out, decision = excluded(
        RequestFeatures(500, 500, needs=CHAT, lenient=True),
        RoutingCandidate(option("m", context=100)),
    )
    assert out == {}
    assert decision.best_candidate.tokens_out == 1


def test_a_candidate_without_a_usable_backend_is_down():
    out, decision = excluded(
        RequestFeatures(5, needs=CHAT),
        RoutingCandidate(option("a"), up=False),
        RoutingCandidate(option("b")),
    )
    assert out == {"a": ("down", "down: no usable backend")}
    assert decision.feasible


def test_normalisation_is_over_those_that_can_serve():
    features = RequestFeatures(5, needs=CHAT)
    cheap, dear = RoutingCandidate(option("cheap")), RoutingCandidate(option("dear", joules=20.0))
    gone = RoutingCandidate(option("gone", joules=1e9), up=False)
    with_it = make_decision(features, [cheap, dear, gone], MetricWeights.from_values(0, 1))
    assert (
        with_it.candidates
        == make_decision(features, [cheap, dear], MetricWeights.from_values(0, 1)).candidates
    )


BOUNDED = (
    RoutingCandidate(option("a", accuracy=0.9, joules=100.0, seconds=4.0)),
    RoutingCandidate(option("b", accuracy=0.6, joules=10.0, seconds=1.0)),
)


@pytest.mark.parametrize(
    ("bounds", "out"),
    [
        (PredictionBounds(max_latency_ms=3999.0), {"a": "bound: max_latency_ms 4000 > 3999"}),
        (PredictionBounds(max_energy_joules=50.0), {"a": "bound: max_energy_joules 100 > 50"}),
        (PredictionBounds(min_accuracy=0.7), {"b": "bound: min_accuracy 0.6 < 0.7"}),
        (
            PredictionBounds(max_latency_ms=2000.0, max_energy_joules=50.0),
            {"a": "bound: max_latency_ms 4000 > 2000, max_energy_joules 100 > 50"},
        ),
        (PredictionBounds(max_latency_ms=4000.0, max_energy_joules=100.0, min_accuracy=0.6), {}),
    ],
)
def test_a_broken_bound_excludes(bounds, out):
    found, decision = excluded(RequestFeatures(5, needs=CHAT), *BOUNDED, bounds=bounds)
    assert {model: reason for model, (_, reason) in found.items()} == out
    assert {code for code, _ in found.values()} <= {"bound"}
    assert decision.feasible
    assert {scored.model for scored in decision.candidates} == {"a", "b"} - set(out)


def test_best_effort_serves_the_least_bad_and_says_so():
    # a breaks latency by 3/1 = 300 %; b breaks accuracy by 0.35/0.6 = 58 %.
    bounds = PredictionBounds(max_latency_ms=1000.0, min_accuracy=0.95)
    found, decision = excluded(RequestFeatures(5, needs=CHAT), *BOUNDED, bounds=bounds)
    assert not decision.feasible
    assert [scored.model for scored in decision.candidates] == ["b", "a"]
    assert set(found) == {"a", "b"}


def test_reject_leaves_nobody():
    bounds = PredictionBounds(max_energy_joules=1.0)
    _, decision = excluded(
        RequestFeatures(5, needs=CHAT), *BOUNDED, bounds=bounds, best_effort=False
    )
    assert (decision.best_candidate, decision.candidates, decision.feasible) == (None, (), False)
    assert len(decision.excluded) == 2


def test_one_within_the_bounds_beats_any_outside_them():
    bounds = PredictionBounds(max_energy_joules=99.0)
    _, decision = excluded(
        RequestFeatures(5, needs=CHAT), *BOUNDED, bounds=bounds, best_effort=False
    )
    assert [scored.model for scored in decision.candidates] == ["b"]


def test_a_bound_of_zero_is_broken_by_all_and_divides_nothing():
    bounds = PredictionBounds(max_latency_ms=0.0, max_energy_joules=0.0)
    _, decision = excluded(RequestFeatures(5, needs=CHAT), *BOUNDED, bounds=bounds)
    assert [scored.model for scored in decision.candidates] == ["b", "a"]
    assert not decision.feasible


def test_a_prediction_below_zero_is_floored_and_counted():
    negative = option("n", joules=-5.0)
    _, decision = excluded(
        RequestFeatures(5, needs=CHAT), RoutingCandidate(negative), RoutingCandidate(option("p"))
    )
    floored = {scored.model: scored.floored for scored in decision.candidates}
    assert floored == {"n": True, "p": False}
    assert next(s for s in decision.candidates if s.model == "n").predicted_joules == COST_FLOOR


def test_nobody_to_ask():
    decision = make_decision(
        RequestFeatures(5), [], MetricWeights.from_values(1), profile_version="v"
    )
    assert (decision.best_candidate, decision.feasible, decision.profile_version) == (
        None,
        False,
        "v",
    )


def test_the_output_line_is_the_models_own():
    talkative = option("t", output=OutputModel(0.0, 900.0))
    _, decision = excluded(
        RequestFeatures(5, needs=CHAT), RoutingCandidate(talkative), RoutingCandidate(option("m"))
    )
    out = {scored.model: scored.tokens_out for scored in decision.candidates}
    # 1.028 * 5 + 44.12 = 49.26; the context of 4096 cuts little off the longest of the others
    assert out == {"t": 884, "m": 49}


def test_a_label_stands_for_the_policy():
    decision = make_decision(
        RequestFeatures(5, needs=CHAT), BOUNDED, MetricWeights.from_values(1), label="none"
    )
    assert decision.policy == "none"
