"""What judgements add to an accuracy: learnt by words and kinds, faded, kept, restored."""

import json
import random

import pytest

from gateway.scheduling.accuracy_bandit import (
    NO_FEATURES,
    AccuracyBandit,
    JudgedFeatures,
    read_judged_features,
)
from gateway.scheduling.text_features import extract_text_features

DAY = 86_400.0
MATHS = read_judged_features(extract_text_features("solve the integral equation"))
TALK = read_judged_features(extract_text_features("hello friend, nice weather today"))
KIND_A = JudgedFeatures((), (0.0,) * 4, (1.0, 0.0))
KIND_B = JudgedFeatures((), (0.0,) * 4, (0.0, 1.0))


def make():
    return AccuracyBandit(14 * DAY)


def teach(bandit, features, score, count, at=0.0, static=0.5):
    for _ in range(count):
        bandit.observe("small", features, static, score, at)


def test_nothing_judged_nothing_added():
    found = make().predict("small", MATHS, 0.6)
    assert found.value == 0.6
    assert found.deviation > 0.1


def test_judgements_count_for_their_model_and_such_prompts():
    bandit = make()
    for _ in range(200):
        bandit.observe("small", MATHS, 0.5, 0.0, 0.0)
        bandit.observe("small", TALK, 0.5, 1.0, 0.0)
    maths, talk = (bandit.predict("small", one, 0.5) for one in (MATHS, TALK))
    assert maths.value < 0.35
    assert talk.value > 0.65
    assert maths.deviation < make().predict("small", MATHS, 0.5).deviation
    assert bandit.predict("large", MATHS, 0.5) == make().predict("large", MATHS, 0.5)
    assert bandit.judged == {"small": 400}


def test_kinds_are_told_apart():
    bandit = make()
    teach(bandit, KIND_A, 0.0, 100)
    assert bandit.predict("small", KIND_A, 0.5).value < 0.15
    assert bandit.predict("small", KIND_B, 0.5).value > 0.3


def test_a_share_is_found_whatever_the_profile_said():
    rng, bandit = random.Random(5), make()
    for _ in range(1500):
        bandit.observe("small", KIND_A, 0.2, float(rng.random() < 0.7), 0.0)
    assert bandit.predict("small", KIND_A, 0.2).value == pytest.approx(0.7, abs=0.06)


def test_what_is_known_fades_and_the_mean_stays():
    bandit = make()
    teach(bandit, KIND_A, 0.6, 300)
    before = bandit.predict("small", KIND_A, 0.5)
    bandit.fade(0.01 * DAY)
    assert bandit.predict("small", KIND_A, 0.5) == before
    bandit.fade(28 * DAY)
    after = bandit.predict("small", KIND_A, 0.5)
    assert after.value == before.value
    assert after.deviation > 1.3 * before.deviation
    bandit.fade(20 * DAY)  # a clock set back
    assert bandit.predict("small", KIND_A, 0.5) == after


def test_a_sudden_change_makes_it_unknown_at_once():
    rng, bandit = random.Random(6), make()
    for _ in range(600):
        bandit.observe("small", KIND_A, 0.8, float(rng.random() < 0.8), 0.0)
    sure = bandit.predict("small", KIND_A, 0.8).deviation
    for _ in range(40):
        bandit.observe("small", KIND_A, 0.8, float(rng.random() < 0.2), 0.0)
    after = bandit.predict("small", KIND_A, 0.8)
    assert after.value < 0.45
    assert after.deviation > sure
    again = make()
    again.restore(json.loads(json.dumps(bandit.to_state())))
    assert again.predict("small", KIND_A, 0.8).value == pytest.approx(after.value, abs=1e-4)


def test_what_was_learnt_survives_as_plain_json_and_is_bounded():
    bandit = make()
    rng = random.Random(1)
    for _ in range(3000):
        words = " ".join(f"w{rng.randrange(20_000)}" for _ in range(20))
        text = read_judged_features(extract_text_features(words), (0.3, 0.7))
        bandit.observe("small", text, 0.5, float(rng.random() < 0.5), 0.0)
    told = json.dumps(bandit.to_state())
    assert len(told) < 200_000
    again = make()
    again.restore(json.loads(told))
    for features in (MATHS, KIND_A, NO_FEATURES):
        was, now = (one.predict("small", features, 0.5) for one in (bandit, again))
        assert now.value == pytest.approx(was.value, abs=1e-4)
        assert now.deviation == pytest.approx(was.deviation, rel=1e-4)
    assert again.judged == bandit.judged


@pytest.mark.parametrize(
    "weights",
    [[[-1, 0.0, 0.001]], [[10**9, 0.0, 0.001]], [[0, 0.0, 5.0]], [[0, 0.0, 0.0]], [[0, 1.0]],
     [[0, float("nan"), 0.0001]]],
)  # fmt: skip
def test_a_state_that_is_none_is_refused(weights):
    kept = {"judged": 1, "misses": [], "weights": weights}
    with pytest.raises((ValueError, TypeError, LookupError)):
        make().restore({"faded_at": None, "models": {"small": kept}})


def test_models_are_bounded_and_forgotten_together():
    bandit = make()
    for at in range(300):
        bandit.observe(f"m{at}", NO_FEATURES, 0.5, 1.0, 0.0)
    assert len(bandit.judged) == 256
    assert "m0" not in bandit.judged
    bandit.forget_all()
    assert bandit.judged == {}
    with pytest.raises(ValueError, match="half-life"):
        AccuracyBandit(0.0)
