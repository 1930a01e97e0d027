"""Exploration: propensities, the hour's budget and the draws, in plain numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.decision import MetricWeights, RoutingDecision, ScoredCandidate
from gateway.scheduling.exploration import (
    AccuracyExplorer,
    ExplorationBudget,
    ExplorationCharge,
    ExplorationMethod,
    ExplorationRules,
    find_best_chances,
)

THOMPSON, LINUCB = ExplorationMethod.THOMPSON, ExplorationMethod.LINUCB
BALANCED = MetricWeights.from_values(0.5, 0.3, 0.2)


def candidate(name, score, accuracy, joules=100.0, model=None):
    return ScoredCandidate(
        model or name, name, score, accuracy, 1.0, joules, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0),
        0, 0, 10, 10, floored=False,
    )  # fmt: skip


def decision(*candidates, weights=BALANCED, policy="relative", feasible=True):
    return RoutingDecision(policy, weights, candidates, (), feasible, "v")


GOOD, FAIR, DEAR = (
    candidate("good", 0.10, 0.8), candidate("fair", 0.15, 0.7), candidate("dear", 0.3, 0.8, 500.0),
)  # fmt: skip
THREE = decision(GOOD, FAIR, DEAR)
UNSURE = dict.fromkeys(("good", "fair", "dear"), 0.2)


def rules(method=THOMPSON, answers=1e9, joules=1e9, **fields):
    return ExplorationRules(method, answers, joules, **fields)


def list_propensities(found):
    return [found.exploration.propensities[one.model, one.deployment] for one in (GOOD, FAIR, DEAR)]


@given(
    st.lists(st.tuples(st.floats(0, 2), st.floats(0, 0.5)), min_size=2, max_size=6),
)
def test_chances_of_being_best_sum_to_one(arms):
    chances = find_best_chances([one for one, _ in arms], [one for _, one in arms])
    assert sum(chances) == pytest.approx(1.0)
    assert min(chances) >= 0.0


def test_chances_are_those_of_two_normal_scores():
    first, _ = find_best_chances([0.0, 0.3], [0.2, 0.4])
    exact = 0.5 * math.erfc(-0.3 / math.hypot(0.2, 0.4) / math.sqrt(2.0))
    assert first == pytest.approx(exact, abs=0.01)


def test_what_is_certain_is_only_drawn_evenly():
    found = AccuracyExplorer(rules(even_share=0.03)).explore(THREE, {}, 0.0)
    assert list_propensities(found) == pytest.approx([0.98, 0.01, 0.01])


def test_linucb_hopes_and_thompson_matches():
    hopeful = AccuracyExplorer(rules(LINUCB, even_share=0.0, likely_share=0.0)).explore(
        THREE, UNSURE | {"fair": 0.5}, 0.0
    )
    assert list_propensities(hopeful) == [0.0, 1.0, 0.0]
    assert hopeful.exploration.explored
    assert hopeful.best_candidate is FAIR
    assert [one.model for one in hopeful.candidates] == ["fair", "good", "dear"]
    matching = list_propensities(AccuracyExplorer(rules()).explore(THREE, UNSURE, 0.0))
    assert matching[0] > matching[1] > matching[2] > 0.0


@pytest.mark.parametrize("method", [THOMPSON, LINUCB])
def test_who_may_be_the_best_has_a_share_of_its_own_and_more_where_less_is_known(method):
    def find(deviation):
        unsure = {"good": 0.0, "fair": deviation, "dear": 0.0}
        explorer = AccuracyExplorer(rules(method, width=0.0, even_share=0.03))
        return list_propensities(explorer.explore(THREE, unsure, 0.0))

    # `fair` is 0.05 behind, and accuracy weighs a half: two deviations of 0.05 just reach.
    assert find(0.049) == pytest.approx([0.98, 0.01, 0.01])
    assert find(0.06) == pytest.approx([0.96, 0.03, 0.01])
    assert find(0.2) == pytest.approx([0.87, 0.12, 0.01])
    assert find(0.4) == pytest.approx([0.84, 0.15, 0.01])


@pytest.mark.parametrize(
    "given_decision",
    [
        decision(GOOD, FAIR, weights=MetricWeights.from_values(energy=1)),
        decision(GOOD, FAIR, policy="hybrid"),
        decision(GOOD, FAIR, policy="none"),
        decision(GOOD, FAIR, feasible=False),
        decision(GOOD),
        decision(GOOD, candidate("again", 0.2, 0.8, model="good")),
        decision(),
    ],
)
def test_nothing_is_tried_where_nothing_can_be_learnt_or_kept(given_decision):
    assert AccuracyExplorer(rules()).explore(given_decision, UNSURE, 0.0) is given_decision


@given(
    st.lists(
        st.tuples(st.floats(0, 400), st.floats(0, 0.6), st.floats(0, 900)), min_size=1, max_size=80
    ),
    st.floats(0, 3),
    st.floats(0, 2000),
    st.sampled_from([THOMPSON, LINUCB]),
)
def test_no_hour_costs_more_than_its_budget(requests, answers, joules, method):
    explorer = AccuracyExplorer(rules(method, answers, joules, even_share=0.3))
    now, spent = 0.0, []
    for gap, lost, added in requests:
        now += gap
        two = decision(
            candidate("a", 0.1, 0.9, 100.0), candidate("b", 0.2, 0.9 - lost, 100 + added)
        )
        told = explorer.explore(two, {"a": 0.3, "b": 0.3}, now).exploration
        spent.append((now, told.answers_lost, told.joules_added))
        last = [one for one in spent if one[0] > now - 3600.0]
        assert sum(one[1] for one in last) <= answers + 1e-9
        assert sum(one[2] for one in last) <= joules + 1e-6


def test_a_spent_budget_comes_back_with_the_hour():
    budget = ExplorationBudget(1.0, 100.0)
    assert budget.find_scale(0.0, 0.5, 0.0) == 1.0
    budget.spend(0.0, 0.75, 0.0)
    assert budget.find_scale(3600.0, 0.5, 0.0) == pytest.approx(0.25)
    assert budget.find_scale(3599.0, 0.0, 50.0) == 1.0
    assert budget.find_scale(3661.0, 0.5, 0.0) == 1.0


def test_draws_follow_the_seed_go_on_after_a_restart_and_match_their_propensities():
    def draw(explorer, count):
        return [explorer.explore(THREE, UNSURE, 0.0).best_candidate.model for _ in range(count)]

    one, two, other = (AccuracyExplorer(rules(seed=seed)) for seed in (1, 1, 2))
    first = draw(one, 2000)
    assert draw(two, 1000) == first[:1000] != draw(other, 1000)
    restarted = AccuracyExplorer(rules(seed=1))
    restarted.restore(two.to_state())
    assert draw(restarted, 1000) == first[1000:]
    expected = list_propensities(AccuracyExplorer(rules()).explore(THREE, UNSURE, 0.0))
    for name, chance in zip(("good", "fair", "dear"), expected, strict=True):
        sd = math.sqrt(chance * (1.0 - chance) / 2000)
        assert abs(first.count(name) / 2000 - chance) < 5 * sd


def test_a_dry_run_draws_nobody_and_is_not_charged():
    explorer = AccuracyExplorer(rules(answers=1.0))
    before = explorer.to_state()
    found = explorer.explore(THREE, UNSURE, 0.0, draws=False)
    assert found.best_candidate is GOOD
    assert (found.exploration.lot, found.exploration.explored) == (None, False)
    assert explorer.to_state() == before


@pytest.mark.parametrize(
    "state",
    [
        {"drawn": 1},
        {"drawn": "x", "minutes": []},
        {"drawn": 1, "minutes": [[0, 1]]},
        {"drawn": 1, "minutes": [[0, float("nan"), 0]]},
        {"drawn": 1, "minutes": [[0, -1.0, 0]]},
    ],
)
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises((ValueError, TypeError, KeyError)):
        AccuracyExplorer(rules()).restore(state)


def test_a_draw_that_came_to_nothing_is_charged_to_nobody():
    explorer = AccuracyExplorer(rules(answers=1.0))
    for at in (0.0, 61.0):
        explorer.explore(THREE, UNSURE, at)
    before = explorer.to_state()["minutes"]
    told = explorer.explore(THREE, UNSURE, 62.0).exploration
    charge = ExplorationCharge(62.0, told.answers_lost, told.joules_added)
    assert charge.answers > 0.0 < charge.joules
    assert explorer.to_state()["minutes"] != before
    explorer.refund(charge)
    for now, was in zip(explorer.to_state()["minutes"], before, strict=True):
        assert now == pytest.approx(was)
