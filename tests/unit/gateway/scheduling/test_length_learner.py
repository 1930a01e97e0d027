"""Lengths learnt while serving, on a simulated service of 20 applications and two models."""

import json
import math
import random
import statistics

import pytest

from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.censored_lengths import HALF_LIFE_SECONDS, CensoredLengths, LengthPrior
from gateway.scheduling.length_learner import LengthLearner

BASE = AnswerLength.of_mean(44.4)
WITHIN, BETWEEN = 0.45, 0.9
MODELS = {"long": 5.5, "short": 4.2}
NOW = 1.8e9


def serve(requests, *, capped, seed):
    """Return a learner, and each application's true (mu, model, key)."""
    rng = random.Random(seed)
    learner = LengthLearner()
    true = {
        (model, f"app{at}"): mu + offset
        for at, offset in enumerate(rng.gauss(0, BETWEEN) for _ in range(20))
        for model, mu in MODELS.items()
    }
    for turn in range(requests):
        for (model, key), mu in true.items():
            tokens = max(1, round(rng.lognormvariate(mu, WITHIN)))
            cap = rng.choice([128, 256, 512]) if rng.random() < capped else 10**6
            learner.observe(
                model, key, BASE, min(tokens, cap), cut=tokens >= cap, at_seconds=NOW + turn
            )
    return learner, true, rng


@pytest.mark.parametrize("capped", [0.0, 0.6])
def test_after_30_requests_most_answers_lie_within_a_factor_of_two(capped):
    shares, kept = [], []
    for seed in range(5):
        learner, true, rng = serve(30, capped=capped, seed=seed)
        for (model, key), mu in true.items():
            length = learner.predict(model, key, BASE).length
            expected, p90 = length.compute_mean(1, 1e6), length.find_quantile(0.9, 1, 1e9)
            answers = [rng.lognormvariate(mu, WITHIN) for _ in range(200)]
            shares += [0.5 <= expected / tokens <= 2 for tokens in answers]
            kept += [tokens <= p90 for tokens in answers]
    assert statistics.fmean(shares) >= 0.85
    # What a hard bound by the 90% quantile promises.
    assert statistics.fmean(kept) >= 0.88


def test_after_300_requests_with_caps_the_expected_tokens_are_right_in_the_mean():
    for seed in range(3):
        learner, true, _ = serve(300, capped=0.6, seed=seed)
        ratios = [
            learner.predict(model, key, BASE).length.compute_mean(1, 1e6)
            / math.exp(mu + WITHIN**2 / 2)
            for (model, key), mu in true.items()
        ]
        assert statistics.fmean(ratios) == pytest.approx(1.0, abs=0.03)


def test_the_source_says_what_was_learnt_of():
    learner = LengthLearner()
    assert learner.predict("m", "a", BASE) is None
    learner.observe("m", "a", BASE, 400, cut=False, at_seconds=NOW)
    assert learner.predict("m", "a", BASE).source == "application"
    assert learner.predict("m", "other", BASE).source == "model"
    assert learner.predict("n", "unknown", BASE) is None


def test_a_model_that_an_application_never_asked_is_told_by_the_others():
    learner = LengthLearner()
    for turn in range(200):
        for model in ("m", "n"):
            learner.observe(model, "usual", BASE, 300, cut=False, at_seconds=NOW + turn)
        learner.observe("m", "terse", BASE, 10, cut=False, at_seconds=NOW + turn)
    told = learner.predict("n", "terse", BASE)
    assert told.source == "application"
    usual = learner.predict("n", "usual", BASE).length.compute_mean(1, 1e6)
    assert told.length.compute_mean(1, 1e6) < usual / 3


def test_cut_answers_are_taken_as_at_least_that_long():
    rng = random.Random(3)
    lengths = CensoredLengths(1e6)
    for turn in range(4000):
        value = rng.gauss(1.0, 0.7)
        lengths.add(min(value, 0.8), cut=value >= 0.8, at_seconds=NOW + turn)
    for _ in range(5):
        lengths.estimate(LengthPrior(0.0, 0.8, 0.5, 1.0))
    assert lengths.mean == pytest.approx(1.0, abs=0.05)
    assert lengths.sigma == pytest.approx(0.7, abs=0.05)


def test_what_is_days_old_is_outweighed():
    learner = LengthLearner()
    for turn in range(300):
        learner.observe("m", "a", BASE, 500, cut=False, at_seconds=NOW + turn)
    for turn in range(60):
        at = NOW + 12 * 86_400 + turn
        learner.observe("m", "a", BASE, 50, cut=False, at_seconds=at)
    assert learner.predict("m", "a", BASE).length.mu < math.log(100)


@pytest.mark.parametrize("gap_seconds", [0.05, 0.3, 5.0])
def test_answers_are_forgotten_with_time_however_close_they_come(gap_seconds):
    found = CensoredLengths(most=math.inf)
    for turn in range(20_000):
        found.add(0.0, cut=False, at_seconds=NOW + turn * gap_seconds)
    keep = 0.5 ** (gap_seconds / HALF_LIFE_SECONDS)
    assert found.n == pytest.approx((1 - keep**20_000) / (1 - keep), rel=1e-5)
    assert found.n < 20_000 * (1 - 1e-4)


def test_the_table_is_bounded_and_forgets_the_one_silent_longest():
    learner = LengthLearner(most_applications=3)
    for at, key in enumerate("abcad"):
        learner.observe("m", key, BASE, 50, cut=False, at_seconds=NOW + at)
    assert len(learner) == 3
    assert learner.predict("m", "b", BASE).source == "model"
    assert learner.predict("m", "a", BASE).source == "application"


def test_a_restart_loses_nothing():
    learner, true, _ = serve(20, capped=0.6, seed=1)
    again = LengthLearner()
    again.restore(json.loads(json.dumps(learner.to_state())))
    for model, key in true:
        assert again.predict(model, key, BASE) == learner.predict(model, key, BASE)


@pytest.mark.parametrize("state", [{}, {"models": {"m": {}}}, {"models": {}, "applications": 3}])
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        LengthLearner().restore(state)


def test_another_profile_changes_the_base_and_not_what_was_learnt():
    learner, true, _ = serve(50, capped=0.3, seed=2)
    now = AnswerLength(6.0, BASE.sigma)
    before = {name: learner.predict(*name, BASE).length for name in true}
    for model in MODELS:
        learner.set_base(model, now.mu)
    for name, length in before.items():
        assert learner.predict(*name, now).length.mu == pytest.approx(length.mu, abs=1e-9)
