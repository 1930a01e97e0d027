"""What a GPU's readings come to: wraps undone, resets shown, power summed, counters checked."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.meter.sources.gpu_counter import CHECK_EVERY_US, CHECK_US, GpuCounter, PowerIntegral

SECOND = 1_000_000
STEP = 50_000


def advance(counter, readings):
    """What it counts over (at_us, millijoules, milliwatts)."""
    values = [counter.take(*reading) for reading in readings]
    return values[-1] - values[0]


@given(
    st.sampled_from([32, 64]),
    st.integers(0, 2**40),
    st.lists(st.integers(0, 200_000), min_size=2, max_size=60),
)
def test_a_wrap_is_undone(bits, start, steps):
    total, at_us, counter = (2**bits - start % 2**31 - 1), 0, GpuCounter()
    first = counter.record_reading(0, total, None)
    for step in steps:
        total += step
        at_us += STEP
        last = counter.record_reading(at_us, total % 2**bits, None)
    assert last - first == 1000 * sum(steps)


@pytest.mark.parametrize(
    ("last", "raw", "elapsed_us"),
    [
        (5_000_000, 0, STEP),
        (5_000_000, 4_999_999, STEP),
        (2**32 - 1_000_000_000, 10, STEP),
        (2**32 - 10, 10, 61 * SECOND),
        (2**33, 10, STEP),
        (2**32 + 10, 10, STEP),
    ],
    ids=["reset", "one less", "far from the wrap", "long silence", "past the wrap", "just past it"],
)
def test_any_other_fall_is_left_to_see(last, raw, elapsed_us):
    counter = GpuCounter()
    before = counter.record_reading(0, last, None)
    assert counter.record_reading(elapsed_us, raw, None) < before


def test_a_second_wrap_comes_on_top():
    counter = GpuCounter()
    near = 2**32 - 5
    assert advance(counter, [(0, near, None), (STEP, 3, None)]) == 8000
    counter.record_reading(2 * SECOND, near, None)
    assert counter.record_reading(2 * SECOND + STEP, 3, None) == (2 * 2**32 + 3) * 1000


@given(
    st.lists(
        st.tuples(st.integers(0, 2_000_000), st.integers(0, 1_000_000)), min_size=2, max_size=40
    )
)
def test_power_is_summed_by_trapezoids_without_loss(points):
    integral, at_us, twice = PowerIntegral(), 0, 0
    for place, (step, milliwatts) in enumerate(points):
        at_us += step
        if place:
            twice += step * (milliwatts + points[place - 1][1])
        integral.add_power(at_us, milliwatts)
    assert integral.microjoules == twice // 2000


def test_nothing_is_summed_across_a_hole():
    counter = GpuCounter()
    counter.integrate_power()
    assert advance(counter, [(0, None, 100_000), (SECOND, None, 100_000)]) == 100 * SECOND
    counter.resume_after_hole()
    assert (
        advance(counter, [(50 * SECOND, None, 100_000), (51 * SECOND, None, 100_000)])
        == 100 * SECOND
    )
    assert counter.record_reading(51 * SECOND, None, 100_000) == 200 * SECOND


def run(counter, seconds, watts, factor=1.0, began_us=0):
    """Read every 50 ms; returns the last value."""
    value = 0
    for at_us in range(began_us, began_us + round(seconds * SECOND) + 1, STEP):
        millijoules = None if counter.integrates else round(factor * watts * at_us / 1000)
        milliwatts = watts * 1000 if counter.wants_power(at_us) else None
        value = counter.take(at_us, millijoules, milliwatts)
    return value


def test_a_counter_that_agrees_with_power_stays():
    counter = GpuCounter()
    assert counter.ratio is None
    assert run(counter, 6, 300) == 1800 * SECOND
    assert counter.ratio == pytest.approx(1, abs=0.001)
    assert not counter.integrates


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.6])
def test_a_counter_that_does_not_is_replaced_by_the_integral(factor):
    counter = GpuCounter()
    run(counter, CHECK_US / SECOND, 300, factor)
    assert counter.ratio == pytest.approx(factor, abs=0.001)
    assert not counter.integrates
    switch_us = 2 * CHECK_US + STEP
    at_switch = run(counter, (switch_us - CHECK_US) / SECOND - 0.05, 300, factor, CHECK_US + STEP)
    assert counter.integrates
    assert counter.ratio == pytest.approx(factor, abs=0.001)
    after = run(counter, 2, 300, began_us=switch_us)
    assert after - at_switch == pytest.approx(600 * SECOND, abs=16 * SECOND)


def test_a_counter_that_lags_behind_a_jump_of_power_is_given_another_chance():
    counter = GpuCounter()
    for at_us in range(0, CHECK_US, STEP):
        counter.record_reading(at_us, 0, 0)
    counter.record_reading(CHECK_US, 0, 2_000_000)
    assert counter.ratio == 0
    run(counter, 6, 300, began_us=CHECK_US + STEP)
    assert counter.ratio == pytest.approx(1, abs=0.02)
    assert not counter.integrates
    assert not counter.wants_power(12 * SECOND)


def test_the_switch_neither_jumps_nor_falls():
    counter = GpuCounter()
    values = [
        counter.record_reading(at_us, 12_345, 300_000) for at_us in range(0, 12 * SECOND, STEP)
    ]
    steps = [b - a for a, b in pairwise(values)]
    assert set(steps) == {0, 15 * SECOND}


def test_an_idle_gpu_is_not_judged():
    counter = GpuCounter()
    run(counter, 20, 0)
    assert counter.ratio is None
    assert not counter.integrates


def test_checks_come_again_and_power_is_left_alone_between():
    counter = GpuCounter()
    run(counter, 6, 300)
    assert not counter.wants_power(10 * SECOND)
    assert counter.wants_power(CHECK_US + CHECK_EVERY_US)


def test_a_check_with_a_gap_begins_anew():
    counter = GpuCounter()
    readings = [(0, 0, 300_000), (STEP, 0, 300_000), (8 * SECOND, 2_400_000, 0)]
    for reading in readings:
        counter.record_reading(*reading)
    assert counter.ratio is None
    run(counter, 6, 300, began_us=8 * SECOND)
    assert counter.ratio == pytest.approx(1, abs=0.02)


def test_a_reset_in_a_check_is_no_verdict():
    counter = GpuCounter()
    for second in range(4):
        counter.record_reading(second * SECOND, 50_000_000 + 300_000 * second, 300_000)
    for second in range(4, 9):
        counter.record_reading(second * SECOND, 300_000 * (second - 4), 300_000)
    assert counter.ratio is None
    counter.record_reading(9 * SECOND, 1_500_000, 300_000)
    assert counter.ratio == pytest.approx(1)


def test_without_power_there_is_no_check():
    counter = GpuCounter()
    for at_us in range(0, 7 * SECOND, STEP):
        counter.record_reading(at_us, at_us // 1000, None)
    assert counter.ratio is None
    assert not counter.wants_power(8 * SECOND)
