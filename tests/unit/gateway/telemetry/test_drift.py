"""The test for a change of bias, and the metrics of predictions beside what came."""

import math
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import drift
from gateway.telemetry.drift import DriftMetrics, PageHinkley

values = st.lists(st.floats(-5, 5), max_size=60)


def textbook(xs, delta, direction):
    """The sum of x - mean - delta less its minimum so far, written as it is published."""
    total, lowest, seen = 0.0, 0.0, []
    for t, x in enumerate(xs, 1):
        mean = math.fsum(xs[:t]) / t
        total += direction * (x - mean) - delta
        lowest = min(lowest, total)
        seen.append(total - lowest)
    return seen


@given(values, st.floats(0, 1))
def test_without_decay_it_is_the_published_statistic(xs, delta):
    test = PageHinkley(delta, threshold=1e9)
    found = []
    for x in xs:
        assert not test.add_value(x)
        found.append((test.rise, test.fall, test.score))
    rises, falls = textbook(xs, delta, 1), textbook(xs, delta, -1)
    for (rise, fall, score), a, b in zip(found, rises, falls, strict=True):
        assert (rise, fall, score) == pytest.approx((a, b, max(a, b)), abs=1e-9)


@given(values)
def test_a_rise_is_a_fall_seen_from_below(xs):
    up, down = (PageHinkley(0.1, 2.0, 0.99) for _ in range(2))
    for x in xs:
        assert up.add_value(x) == down.add_value(-x)
        assert (up.rise, up.fall) == (down.fall, down.rise)


@given(st.floats(-5, 5), st.floats(-1, 1), st.integers(20, 200))
def test_what_was_always_so_is_no_change(level, noise, count):
    test = PageHinkley(0.5 + abs(noise), 5.0)
    for k in range(count):
        assert not test.add_value(level + (noise if k % 2 else -noise))
    assert test.score < 5.0


@pytest.mark.parametrize("factor", [1.3, 1 / 1.3, 2.0, 0.5])
def test_a_change_is_found_within_hundreds_and_noise_alone_is_not(factor):
    rng = random.Random(7)
    test = PageHinkley(0.05, 25.0, 0.9999)
    assert not any(test.add_value(rng.gauss(0.2, 0.3)) for _ in range(50_000))
    test.reset_test()
    assert not any(test.add_value(rng.gauss(0.2, 0.3)) for _ in range(2_000))
    shift = math.log(factor)
    after = next(k for k in range(1_000) if test.add_value(rng.gauss(0.2 + shift, 0.3)))
    assert after < 60 / abs(shift)


def test_an_alarm_begins_anew_and_the_new_level_is_the_usual_one():
    test = PageHinkley(0.05, 5.0)
    for _ in range(100):
        assert not test.add_value(0.0)
    alarms = sum(test.add_value(1.0) for _ in range(500))
    assert alarms == 1
    assert test.score == 0.0


def test_decay_forgets_what_is_long_past():
    keeps, forgets = PageHinkley(0.1, 100.0), PageHinkley(0.1, 100.0, 0.9)
    for k in range(130):
        for test in (keeps, forgets):
            test.add_value(1.0 if 100 <= k < 110 else 0.0)
    assert keeps.score > 3.0
    assert forgets.score == 0.0


@pytest.mark.parametrize(
    "settings", [(-0.1, 1.0, 1.0), (0.1, 0.0, 1.0), (0.1, 1.0, 0.0), (0.1, 1.0, 1.1), (math.nan, 1)]
)
def test_settings_that_make_no_test_are_refused(settings):
    with pytest.raises(ValueError, match="no test"):
        PageHinkley(*settings)


WHAT = {
    "requests_total",
    "predicted_total",
    "observed_total",
    "absolute_error_total",
    "drift_score",
    "drift_alarms_total",
}


def name_series(sample):
    """(what, model, quantity, profile); sums have their quantity's unit in their name."""
    what, labels = sample.name.removeprefix("joulegate_prediction_"), sample.labels
    quantity = labels.get("quantity")
    if quantity is None:
        what, unit, _ = what.rsplit("_", 2)
        what, quantity = f"{what}_total", "output_tokens" if unit == "tokens" else unit
    return what, labels["model"], quantity, labels["profile"]


class Watched(DriftMetrics):
    def __init__(self):
        self.registry = CollectorRegistry()
        super().__init__(self.registry, ("phi-3-mini", "mistral-7b"))

    def page(self):
        """{(what, model, quantity, profile): value} once what is new has been published."""
        self.publish_metrics()
        return {
            name_series(one): one.value
            for family in text_string_to_metric_families(generate_latest(self.registry).decode())
            for one in family.samples
            if not one.name.endswith("_created")
        }


@pytest.fixture
def watched():
    return Watched()


def test_every_series_is_there_from_the_start(watched):
    assert watched.page() == {
        (what, model, quantity, profile): 0.0
        for what in WHAT
        for model in ("phi-3-mini", "mistral-7b")
        for quantity in ("seconds", "joules", "output_tokens")
        for profile in ("live", "shadow")
    }


def test_sums_of_what_was_predicted_and_what_came(watched):
    watched.add_comparison("phi-3-mini", drift.LIVE, drift.SECONDS, 2.0, 3.0)
    watched.add_comparison("phi-3-mini", drift.LIVE, drift.SECONDS, 4.0, 2.5)
    watched.add_comparison("phi-3-mini", drift.SHADOW, drift.SECONDS, 1.0, 1.0)
    page = watched.page()
    of = {what: page[what, "phi-3-mini", "seconds", "live"] for what in WHAT}
    assert of.pop("drift_score") > 0
    assert of == {
        "requests_total": 2,
        "predicted_total": 6,
        "observed_total": 5.5,
        "absolute_error_total": 2.5,
        "drift_alarms_total": 0,
    }
    assert page["requests_total", "phi-3-mini", "seconds", "shadow"] == 1
    assert page["requests_total", "mistral-7b", "seconds", "live"] == 0


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_what_is_no_amount_is_left_out_whole(watched, bad):
    before = watched.page()
    watched.add_comparison("phi-3-mini", drift.LIVE, drift.JOULES, bad, 1.0)
    watched.add_comparison("phi-3-mini", drift.LIVE, drift.JOULES, 1.0, bad)
    assert watched.page() == before


def test_zero_counts_and_does_not_enter_the_test(watched):
    watched.add_comparison("phi-3-mini", drift.LIVE, drift.OUTPUT_TOKENS, 10.0, 0.0)
    page = watched.page()
    assert page["absolute_error_total", "phi-3-mini", "output_tokens", "live"] == 10
    assert page["drift_score", "phi-3-mini", "output_tokens", "live"] == 0


@pytest.mark.parametrize("quantity", drift.QUANTITIES)
def test_a_model_twice_as_slow_raises_one_alarm_of_its_own(watched, quantity):
    rng = random.Random(3)
    for k in range(4_000):
        truth = 10 * (1 if k < 2_000 else 2) * rng.lognormvariate(0, 0.4)
        watched.add_comparison("phi-3-mini", drift.LIVE, quantity, 10.0, truth)
        watched.add_comparison(
            "mistral-7b", drift.LIVE, quantity, 10.0, 10 * rng.lognormvariate(0, 0.4)
        )
    page = watched.page()
    alarms = {name[1:]: value for name, value in page.items() if name[0] == "drift_alarms_total"}
    assert alarms.pop(("phi-3-mini", quantity, "live")) == 1
    assert not any(alarms.values())
    assert 0 <= page["drift_score", "phi-3-mini", quantity, "live"] < 25


def test_what_is_published_is_not_published_again(watched):
    watched.add_comparison("phi-3-mini", drift.LIVE, drift.SECONDS, 2.0, 3.0)
    assert watched.page() == watched.page()
    watched.add_comparison("phi-3-mini", drift.LIVE, drift.SECONDS, 2.0, 3.0)
    assert watched.page()["requests_total", "phi-3-mini", "seconds", "live"] == 2


def test_another_profile_begins_its_tests_anew(watched):
    for profile in drift.PROFILES:
        for observed in (1.0, 4.0):
            watched.add_comparison("phi-3-mini", profile, drift.SECONDS, 1.0, observed)
    assert watched.page()["drift_score", "phi-3-mini", "seconds", "live"] > 0
    watched.reset_tests(drift.LIVE)
    page = watched.page()
    assert page["drift_score", "phi-3-mini", "seconds", "live"] == 0
    assert page["drift_score", "phi-3-mini", "seconds", "shadow"] > 0
    assert page["requests_total", "phi-3-mini", "seconds", "live"] == 2


WORKER = """
import sys
from prometheus_client import CollectorRegistry
from gateway.telemetry.drift import DriftMetrics
watched = DriftMetrics(CollectorRegistry(), ("phi-3-mini",))
for observed in map(float, sys.argv[1:]):
    watched.add_comparison("phi-3-mini", "live", "seconds", 1.0, observed)
watched.publish_metrics()
print("done", flush=True)
sys.stdin.read()
"""
PAGE = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def test_workers_add_up_and_the_highest_score_is_shown(tmp_path):
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    calm, worried = (
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *observed],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for observed in (("1", "1", "1"), ("1", "2"))
    )
    try:
        assert [one.stdout.readline() for one in (calm, worried)] == ["done\n"] * 2
        page = subprocess.run(
            [sys.executable, "-c", PAGE], env=environment, capture_output=True, check=True
        ).stdout.decode()
    finally:
        for one in (calm, worried):
            one.communicate(timeout=60)
    labels = '{model="phi-3-mini",profile="live",quantity="seconds"}'
    assert f"joulegate_prediction_requests_total{labels} 5.0\n" in page
    of = '{model="phi-3-mini",profile="live"}'
    assert f"joulegate_prediction_observed_seconds_total{of} 6.0\n" in page
    expected = math.log(2) / 2 - 0.05
    score = next(
        line
        for line in page.splitlines()
        if line.startswith(f"joulegate_prediction_drift_score{labels}")
    )
    assert float(score.split()[-1]) == pytest.approx(expected)


def test_another_load_is_no_change_of_behaviour():
    """A profile that knows nothing of company is twice too high in it, and always was."""
    test = PageHinkley(0.05, 25.0, 0.9999)
    rng = random.Random(5)
    alone, crowded = 0, 10
    for _ in range(40):
        assert not test.add_value(rng.gauss(0.0, 0.1), alone)
    for _ in range(5_000):
        assert not test.add_value(rng.gauss(-0.7, 0.1), crowded)
    # The same change without the classes is an alarm, and so is one at the load that is known.
    plain = PageHinkley(0.05, 25.0, 0.9999)
    for _ in range(40):
        plain.add_value(rng.gauss(0.0, 0.1))
    assert any(plain.add_value(rng.gauss(-0.7, 0.1)) for _ in range(5_000))
    assert any(test.add_value(rng.gauss(-0.4, 0.1), crowded) for _ in range(500))


@pytest.mark.parametrize(("quantity", "alarms"), [("joules", 0.0), ("seconds", 1.0)])
def test_only_joules_are_excused_by_a_load_not_seen_before(watched, quantity, alarms):
    """A slowdown raises the load that it is seen at: by Little's law more are there at once."""
    for _ in range(100):
        watched.add_comparison("phi-3-mini", drift.LIVE, quantity, 1.0, 1.0, 1.0)
    for _ in range(40):
        watched.add_comparison("phi-3-mini", drift.LIVE, quantity, 1.0, 3.0, 5.0)
    page = watched.page()
    assert page["drift_alarms_total", "phi-3-mini", quantity, "live"] == alarms


def test_loads_are_told_apart_by_their_ratio():
    assert [drift._classify_load(running) for running in (0.0, 0.05, 1.0, 1.05)] == [0, 0, 3, 4]
    assert drift._classify_load(7.0) != drift._classify_load(9.0)
    assert drift._classify_load(70.0) == drift._classify_load(72.0)
    assert drift._classify_load(1e9) == drift._classify_load(1e6) == drift._MOST_CLASSES
