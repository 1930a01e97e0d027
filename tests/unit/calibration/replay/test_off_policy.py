"""Policies judged from known propensities: right on average though the logged model is wrong."""

import numpy as np
import pytest

from calibration.replay.off_policy import JudgedDraws, estimate_policy

SIZE = 40_000
KINDS = np.arange(SIZE) % 2
SHARES = np.array([[0.9, 0.3], [0.2, 0.8]])
"""Of right answers, by kind and model."""
ODDS = np.array([0.05, 0.6])
"""How likely the second model is drawn, by kind."""


def draw(seed=0, wrong=0.2):
    rng = np.random.default_rng(seed)
    propensities = np.column_stack([1.0 - ODDS[KINDS], ODDS[KINDS]])
    drawn = (rng.random(SIZE) < ODDS[KINDS]).astype(int)
    scores = (rng.random(SIZE) < SHARES[KINDS, drawn]).astype(float)
    return JudgedDraws(drawn, propensities, np.full((SIZE, 2), wrong), scores)


@pytest.mark.parametrize("chosen", [np.zeros(SIZE, int), np.ones(SIZE, int), KINDS, 1 - KINDS])
def test_both_find_the_truth_though_the_logged_accuracies_are_wrong(chosen):
    truth = SHARES[KINDS, chosen].mean()
    for found in (estimate_policy(draw(), chosen), estimate_policy(draw(wrong=0.9), chosen)):
        assert found.supported == 1.0
        for one in (found.ips, found.doubly_robust):
            low, high = one.interval
            assert one.value == pytest.approx(truth, abs=0.03)
            assert low <= truth <= high
            assert high - low < 0.08


def test_what_could_not_be_drawn_counts_from_wrong_to_right():
    log = draw()
    log.propensities[KINDS == 0] = [1.0, 0.0]
    kept = log._replace(drawn=np.where(KINDS == 0, 0, log.drawn))
    found = estimate_policy(kept, np.ones(SIZE, int))
    assert found.supported == 0.5
    for one in (found.ips, found.doubly_robust):
        assert one.interval.low == pytest.approx(0.5 * 0.8, abs=0.03)
        assert one.interval.high == pytest.approx(0.5 * 0.8 + 0.5, abs=0.03)


def test_nothing_drawn_says_nothing():
    log = draw()
    nobody = JudgedDraws(log.drawn * 0, log.propensities * [1.0, 0.0], log.accuracies, log.scores)
    found = estimate_policy(nobody, np.ones(SIZE, int))
    assert (found.matched, found.supported) == (0, 0.0)
    assert found.ips.interval == found.doubly_robust.interval == (0.0, 1.0)
