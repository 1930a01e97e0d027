"""The ranking: what no input may break, whatever the coefficients, weights and loads."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.scheduling.cost import COST_FLOOR, CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.decide import (
    POLICIES,
    DeploymentOption,
    RoutingCandidate,
    make_decision,
    repeat_decision,
)
from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.features import OutputModel, RequestFeatures

CHAT = frozenset({"chat"})


def option(name, accuracy, joules, seconds, **more):
    """A model whose cost is a constant, so that a test says what it means."""
    return DeploymentOption(
        model=name,
        deployment=more.pop("deployment", name),
        accuracy=accuracy,
        seconds=CostFunction(CostQuantity.SECONDS, RegressionForm.ADDITIVE, (seconds, 0.0, 0.0)),
        joules=CostFunction(CostQuantity.JOULES, RegressionForm.ADDITIVE, (joules, 0.0, 0.0)),
        context=more.pop("context", 4096),
        capabilities=more.pop("capabilities", CHAT),
        **more,
    )


@st.composite
def options(draw, name, limit):
    form = draw(st.sampled_from(RegressionForm))
    coefficients = st.tuples(*[st.floats(-limit, limit)] * form.term_count)
    return DeploymentOption(
        model=name,
        deployment=name,
        accuracy=draw(st.floats(0.0, 1.0)),
        seconds=CostFunction(CostQuantity.SECONDS, form, draw(coefficients)),
        joules=CostFunction(CostQuantity.JOULES, form, draw(coefficients)),
        context=draw(st.integers(2, 200_000)),
        capabilities=CHAT,
        output=OutputModel(draw(st.floats(-10, 10)), draw(st.floats(-1e4, 1e4))),
        ratio=draw(st.floats(0.01, 100.0)),
    )


@st.composite
def fleets(draw, limit=1e12):
    count = draw(st.integers(1, 5))
    return [
        RoutingCandidate(
            draw(options(f"m{index}", limit)),
            draw(st.integers(0, 500)),
            draw(st.sampled_from([True, True, True, False])),
            draw(st.sampled_from([0, 0, 1, 40])),
        )
        for index in range(count)
    ]


weights = (
    st.tuples(*[st.floats(0.0, 1e6)] * 3).filter(any).map(lambda w: MetricWeights.from_values(*w))
)
features = st.builds(
    RequestFeatures,
    st.integers(0, 10**6),
    st.none() | st.integers(1, 10**6),
    needs=st.just(CHAT),
    lenient=st.booleans(),
)
policies = st.sampled_from(sorted(POLICIES))


def test_the_policies():
    assert list(POLICIES) == ["relative", "fair-ols", "hybrid"]
    with pytest.raises(KeyError):
        make_decision(RequestFeatures(1), [], MetricWeights.from_values(1), policy="round-robin")


@given(fleets(), features, weights, policies)
def test_no_nan_and_no_negative_number_comes_out(fleet, wanted, weighted, policy):
    decision = make_decision(wanted, fleet, weighted, policy=policy)
    for scored in decision.candidates:
        numbers = (scored.predicted_seconds, scored.predicted_joules, scored.score)
        for number in (*numbers, *scored.costs, *scored.terms):
            assert math.isfinite(number)
            assert number >= 0.0
        assert scored.predicted_seconds > 0.0
        assert scored.predicted_joules > 0.0
        assert scored.tokens_in >= 1
        assert scored.tokens_out >= 1


@given(fleets(), features, weights, policies)
def test_everyone_is_ranked_or_excluded_and_best_comes_first(fleet, wanted, weighted, policy):
    decision = make_decision(wanted, fleet, weighted, policy=policy)
    names = [entry.model for entry in (*decision.candidates, *decision.excluded)]
    assert sorted(names) == sorted(candidate.option.model for candidate in fleet)
    scores = [scored.score for scored in decision.candidates]
    assert scores == sorted(scores)
    assert decision.feasible is bool(scores)


@given(fleets(), features, weights, policies, weights, policies)
def test_a_decision_can_be_repeated(fleet, wanted, weighted, policy, others, another):
    decision = make_decision(wanted, fleet, weighted, policy=policy)
    assert repeat_decision(decision, weighted, policy) == decision
    # By other weights too it is what would have been decided: each has one place.
    other = make_decision(wanted, fleet, others, policy=another)
    assert repeat_decision(decision, others, another) == other


@given(st.data(), fleets(), features, weights, policies)
def test_the_order_of_the_candidates_does_not_matter(data, fleet, wanted, weighted, policy):
    shuffled = data.draw(st.permutations(fleet))
    one = make_decision(wanted, fleet, weighted, policy=policy)
    other = make_decision(wanted, shuffled, weighted, policy=policy)
    assert one.candidates == other.candidates
    assert sorted(one.excluded) == sorted(other.excluded)
    assert make_decision(wanted, fleet, weighted, policy=policy) == one


@given(fleets(limit=1e6), features, weights)
@settings(max_examples=100)
def test_a_score_is_the_weighted_sum_of_the_contract(fleet, wanted, weighted):
    decision = make_decision(wanted, fleet, weighted, policy="fair-ols")
    ranked = decision.candidates
    assume(ranked)
    low_e = min(scored.predicted_joules for scored in ranked)
    high_e = max(scored.predicted_joules for scored in ranked)
    low_t = min(scored.predicted_seconds for scored in ranked)
    high_t = max(scored.predicted_seconds for scored in ranked)
    for scored in ranked:
        e_norm = (scored.predicted_joules - low_e) / (high_e - low_e + 1e-9)
        t_norm = (scored.predicted_seconds - low_t) / (high_t - low_t + 1e-9)
        a_cost = 1 - scored.accuracy
        score = weighted.accuracy * a_cost + weighted.energy * e_norm + weighted.time * t_norm
        assert scored.score == pytest.approx(score, rel=1e-9, abs=1e-9)
        assert scored.costs == pytest.approx((a_cost, e_norm, t_norm), rel=1e-9, abs=1e-12)
        terms = (weighted.accuracy * a_cost, weighted.energy * e_norm, weighted.time * t_norm)
        assert scored.terms == pytest.approx(terms, rel=1e-9, abs=1e-12)


def expected_cost(cost, tokens_in, mean, deviation, running):
    """The mean cost over an answer's length: the form at the mean, and half its curvature.

    As near as floats can tell: coefficients of both signs leave little of large terms.
    """
    step = max(1.0, mean, deviation)
    at = [cost.evaluate_form(tokens_in, o * step, running) for o in (0.0, 1.0, 2.0)]
    bend = at[0] - 2.0 * at[1] + at[2] if cost.form.reads_context else 0.0
    whole = cost.evaluate_form(tokens_in, mean, running) + bend * (deviation / step) ** 2 / 2.0
    terms = CostFunction(cost.quantity, cost.form, tuple(abs(b) for b in cost.coefficients))
    largest = terms.evaluate_form(tokens_in, 2.0 * step, running)
    return pytest.approx(max(COST_FLOOR, whole), rel=1e-9, abs=1e-14 * largest)


@given(fleets(limit=1e6), features, weights, policies)
def test_predictions_come_from_the_options_own_tokens(fleet, wanted, weighted, policy):
    decision = make_decision(wanted, fleet, weighted, policy=policy)
    by_name = {candidate.option.model: candidate for candidate in fleet}
    for scored in decision.candidates:
        chosen, running, _, queued, *_ = by_name[scored.model]
        tokens_in = max(1, round(wanted.tokens_in * chosen.ratio))
        room = chosen.context - tokens_in
        limit = room if wanted.asked_tokens_out is None else min(wanted.asked_tokens_out, room)
        length = chosen.output.describe(tokens_in)
        mean = length.compute_mean(1.0, max(1.0, limit))
        deviation = length.compute_moments(1.0, max(1.0, limit)).deviation
        assert (scored.tokens_in, scored.tokens_out) == (tokens_in, max(1, round(mean)))
        assert scored.predicted_joules == expected_cost(
            chosen.joules, tokens_in, mean, deviation, running
        )
        assert scored.reference_joules == scored.predicted_joules
        # Each of those ahead takes as long, and `running` of them are served at a time.
        alone = scored.predicted_seconds / (1.0 + queued / max(1, running))
        assert alone == expected_cost(chosen.seconds, tokens_in, mean, deviation, running)
        assert (scored.running, scored.queued) == (running, queued)


# Coarse values, so that equal metrics and full ties come up often.
coarse = st.tuples(
    st.sampled_from([0.5, 0.6, 0.7]), st.sampled_from([1.0, 2.0, 9.0]), st.sampled_from([1.0, 3.0])
)
smooth = st.tuples(st.floats(0.0, 1.0), st.floats(1e-2, 1e7), st.floats(1e-2, 1e7))


@given(st.lists(coarse | smooth, min_size=2, max_size=5), weights | st.just(MetricWeights(0, 0, 1)))
@settings(max_examples=300)
def test_a_dominated_candidate_never_wins_under_fair_ols(rows, weighted):
    # Names fall, so that the tie-break by name would favour the later ones.
    fleet = [RoutingCandidate(option(f"m{9 - place}", *row)) for place, row in enumerate(rows)]
    best = make_decision(
        RequestFeatures(10, needs=CHAT), fleet, weighted, policy="fair-ols"
    ).best_candidate
    for accuracy, joules, seconds in rows:
        as_good = (
            accuracy >= best.accuracy
            and joules <= best.predicted_joules
            and seconds <= best.predicted_seconds
        )
        assert not as_good or (accuracy, joules, seconds) == (
            best.accuracy,
            best.predicted_joules,
            best.predicted_seconds,
        )


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_one_candidate_wins_at_any_weights(policy):
    for weighted in (
        MetricWeights.from_values(1),
        MetricWeights.from_values(0, 1),
        MetricWeights.from_values(0, 0, 1),
        MetricWeights.from_values(1, 1, 1),
    ):
        fleet = [RoutingCandidate(option("only", 0.6, 5.0, 2.0))]
        decision = make_decision(RequestFeatures(10, needs=CHAT), fleet, weighted, policy=policy)
        assert decision.best_candidate.model == "only"
        assert decision.best_candidate.costs[1:] == (0.0, 0.0)


def winner(*entries, policy="fair-ols"):
    fleet = [RoutingCandidate(entry) for entry in entries]
    decision = make_decision(
        RequestFeatures(10, needs=CHAT), fleet, MetricWeights.from_values(1, 1, 1), policy=policy
    )
    assert len({scored.score for scored in decision.candidates}) == 1, "meant to be a tie"
    return decision.best_candidate.model


def test_ties_go_to_lower_energy_then_lower_time_then_name():
    # Two candidates, one better at energy and one at time: both score 1/3 + accuracy.
    thrifty, fast = option("thrifty", 0.5, 1.0, 9.0), option("fast", 0.5, 9.0, 1.0)
    assert winner(fast, thrifty) == "thrifty"
    assert winner(option("b", 0.5, 1.0, 1.0), option("a", 0.5, 1.0, 1.0)) == "a"
    assert winner(option("b", 0.5, 1.0, 1.0), option("a", 0.5, 1.0, 1.0), policy="hybrid") == "a"
    one, two = (option("m", 0.5, 1.0, 1.0, deployment=name) for name in ("h100", "a100"))
    decision = make_decision(
        RequestFeatures(9, needs=CHAT),
        [RoutingCandidate(one), RoutingCandidate(two)],
        MetricWeights.from_values(1),
    )
    assert decision.best_candidate.deployment == "a100"


def test_a_tie_in_score_and_energy_goes_to_lower_time():
    # Time has no weight, so it enters the tie-break only.
    slow, fast = option("a", 0.5, 1.0, 9.0), option("b", 0.5, 1.0, 1.0)
    decision = make_decision(
        RequestFeatures(10, needs=CHAT),
        [RoutingCandidate(slow), RoutingCandidate(fast)],
        MetricWeights.from_values(1, 1),
    )
    assert [scored.model for scored in decision.candidates] == ["b", "a"]
