"""A tokeniser's scale from what answers report."""

import json
import random

import pytest

from gateway.scheduling.features import TokenScale
from gateway.scheduling.token_learner import TokenLearner

PROFILE = TokenScale(1.0, 0.0)
TRUE = TokenScale(1.1, 0.35, 12.0)


def teach(learner, rows, seed=1, noise=0.03):
    rng = random.Random(seed)
    for _ in range(rows):
        counted = round(10 ** rng.uniform(1, 3.5))
        dense = round(counted * rng.uniform(0, 2.5))
        tokens = round(TRUE.estimate(counted, dense) * rng.gauss(1.0, noise))
        learner.observe("m", PROFILE, counted, dense, tokens)


def test_the_scale_is_found():
    learner = TokenLearner()
    assert learner.predict("m") is None
    teach(learner, 500)
    for counted, dense in ((15, 3), (100, 10), (1000, 1900), (3000, 100)):
        got = learner.predict("m").estimate(counted, dense)
        assert got == pytest.approx(TRUE.estimate(counted, dense), rel=0.03, abs=1)


def test_a_few_rows_already_help_and_one_changes_little():
    learner = TokenLearner()
    learner.observe("m", PROFILE, 1000, 100, 1300)
    assert 1010 < learner.predict("m").estimate(1000, 100) < 1300
    teach(learner, 30)
    assert learner.predict("m").estimate(1000, 1000) == pytest.approx(1462, rel=0.06)


def test_rows_that_cannot_be_prompts_are_left_out():
    learner = TokenLearner()
    teach(learner, 100)
    before = learner.predict("m")
    for tokens in (1, 100_000):
        learner.observe("m", PROFILE, 1000, 100, tokens)
    learner.observe("m", PROFILE, 0, 0, 3)
    assert learner.predict("m") == before


def test_another_profile_begins_anew_and_a_restart_does_not():
    learner = TokenLearner()
    teach(learner, 100)
    again = TokenLearner()
    again.restore(json.loads(json.dumps(learner.to_state())))
    assert again.predict("m") == learner.predict("m")
    again.observe("m", TokenScale(1.5), 100, 0, 150)
    assert again.predict("m").ratio == pytest.approx(1.5, abs=0.01)
