"""Closed forms of a cut log-normal against numerical integration, and what uses them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.answer_length import AnswerLength, find_normal_quantile
from gateway.scheduling.candidate import DeploymentOption, LearntLength, RoutingCandidate
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.decide import make_decision
from gateway.scheduling.decision import MetricWeights, PredictionBounds
from gateway.scheduling.features import OutputModel, RequestFeatures

STEPS = 20_000


def integrate(length, low, high, power):
    """E[clamp(o, low, high)^power] by the midpoint rule over the quantiles of a normal."""
    total = 0.0
    for step in range(STEPS):
        z = -9.0 + 18.0 * (step + 0.5) / STEPS
        density = math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi) * 18.0 / STEPS
        tokens = math.exp(length.mu + length.sigma * z)
        total += density * min(max(tokens, low), high) ** power
    return total


@pytest.mark.parametrize(("mu", "sigma"), [(5.0, 0.8), (3.0, 0.2), (6.5, 1.5)])
@pytest.mark.parametrize(("low", "high"), [(1, 64), (1, 256), (100, 300), (1, 1e6), (50, 50)])
def test_the_moments_are_the_integrals(mu, sigma, low, high):
    length = AnswerLength(mu, sigma)
    got = length.compute_moments(low, high)
    assert got.mean == pytest.approx(integrate(length, low, high, 1), rel=1e-4)
    assert got.mean_square == pytest.approx(integrate(length, low, high, 2), rel=1e-4)


@given(st.floats(-5, 50), st.floats(0.01, 4), st.floats(1, 1e5), st.floats(1, 1e5))
def test_the_mean_lies_within_the_clamp(mu, sigma, low, high):
    length = AnswerLength(mu, sigma)
    mean = length.compute_mean(low, high)
    assert min(low, high) * (1 - 1e-6) - 1e-6 <= mean <= high * (1 + 1e-6)
    for share in (0.1, 0.5, 0.9, 0.99):
        assert min(low, high) <= length.find_quantile(share, low, high) <= high


def test_the_worked_example_of_a_cap():
    # min(mean, cap) would be 256
    assert AnswerLength.of_mean(271).compute_mean(1, 256) == pytest.approx(181.4, abs=0.1)


def test_normal_quantiles():
    assert find_normal_quantile(0.5) == pytest.approx(0.0, abs=1e-12)
    assert find_normal_quantile(0.9) == pytest.approx(1.2815515655)
    assert find_normal_quantile(0.01) == pytest.approx(-2.3263478740)


def option(**more):
    """A model that costs 1 ms and 1 J a token out, and nothing else."""
    return DeploymentOption(
        "m",
        "m",
        0.7,
        CostFunction(CostQuantity.SECONDS, RegressionForm.ADDITIVE, (0.0, 0.0, 1e-3)),
        CostFunction(
            CostQuantity.JOULES,
            more.pop("form", RegressionForm.ADDITIVE),
            more.pop("b", (0.0, 0.0, 1.0)),
        ),
        context=4096,
        output=OutputModel(mu=5.0, sigma=0.8),
        **more,
    )


def decided(features, *, bounds=None, **more):
    extra = {} if bounds is None else {"bounds": bounds, "best_effort": False}
    return make_decision(
        features, [RoutingCandidate(option(), **more)], MetricWeights.from_values(1, 1, 1), **extra
    )


def test_min_tokens_is_the_lower_clamp_and_ignore_eos_runs_to_the_limit():
    assert decided(RequestFeatures(10, 150, min_tokens=150)).best_candidate.tokens_out == 150
    assert decided(RequestFeatures(10, 300, min_tokens=200)).best_candidate.tokens_out > 200
    run = decided(RequestFeatures(10, 300, ignore_eos=True)).best_candidate
    assert (run.tokens_out, run.tokens_out_p90, run.source) == (300, 300, "limit")


def test_what_was_learnt_stands_in_for_the_profile():
    learnt = LearntLength(AnswerLength(3.0, 0.4), "application")
    best = decided(RequestFeatures(10), learnt=learnt).best_candidate
    assert (best.tokens_out, best.source) == (round(math.exp(3.08)), "application")
    assert best.length == learnt.length
    assert best.tokens_out_p90 == round(math.exp(3.0 + 0.4 * find_normal_quantile(0.9)))


def test_k_answers_cost_the_sum_in_joules_and_the_longest_in_seconds():
    one, four = (decided(RequestFeatures(10, answers=k)).best_candidate for k in (1, 4))
    assert four.predicted_joules == pytest.approx(4 * one.predicted_joules)
    assert one.predicted_seconds < four.predicted_seconds < 4 * one.predicted_seconds
    assert four.tokens_out == pytest.approx(4 * one.tokens_out, abs=4)
    # Quantiles of a sum lie nearer to its mean than those of one.
    assert four.tokens_out_p90 < 4 * one.tokens_out_p90
    lists = decided(RequestFeatures(400, 1, prompts=4, longest=0.5)).best_candidate
    assert (lists.tokens_in, lists.tokens_out) == (400, 4)


def test_a_quadratic_cost_takes_the_second_moment():
    length, limit = AnswerLength(5.0, 0.8), 4000.0
    moments = length.compute_moments(1, limit)
    wanted = moments.mean + 0.5 * moments.mean_square
    # E[a o + b o^2] from two points is exact; no shipped form is quadratic yet.
    spread = moments.deviation
    points = [moments.mean - spread, moments.mean + spread]
    assert sum(o + 0.5 * o * o for o in points) / 2 == pytest.approx(wanted)


def test_a_bound_is_held_by_the_quantile():
    p50, p90 = (math.exp(5.0 + 0.8 * find_normal_quantile(q)) for q in (0.5, 0.9))
    for limit, share, feasible in (
        (p90 + 1, 0.9, True),
        (p90 - 1, 0.9, False),
        (p50 + 1, 0.5, True),
    ):
        got = decided(
            RequestFeatures(10), bounds=PredictionBounds(max_latency_ms=limit, quantile=share)
        )
        assert got.feasible is feasible
        got = decided(
            RequestFeatures(10), bounds=PredictionBounds(max_energy_joules=limit, quantile=share)
        )
        assert got.feasible is feasible


def test_a_prompt_is_cut_where_the_caller_has_it_cut():
    assert decided(RequestFeatures(9000, 10)).excluded[0].code == "context"
    assert decided(RequestFeatures(9000, 10, truncate_tokens=1000)).best_candidate.tokens_in == 1000
