"""fair-ols against `x_norm = (x-min)/(max-min+eps)` and `1-accuracy`."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling import fair_ols

values = st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=8)
accuracies = st.floats(0.0, 1.0)


@given(values)
def test_min_max_is_the_formula(xs):
    low, high = Fraction(min(xs)), Fraction(max(xs))
    for x, cost in zip(xs, fair_ols.min_max(xs), strict=True):
        wanted = (Fraction(x) - low) / (high - low + Fraction(1, 10**9))
        assert math.isclose(cost, wanted, rel_tol=1e-6, abs_tol=1e-12)


@given(values)
def test_order_is_kept_and_the_range_is_zero_to_one(xs):
    costs = fair_ols.min_max(xs)
    for x, cost_x in zip(xs, costs, strict=True):
        assert 0.0 <= cost_x <= 1.0
        for y, cost_y in zip(xs, costs, strict=True):
            if x < y:
                assert cost_x <= cost_y
            elif x == y:
                assert cost_x == cost_y
    assert costs[xs.index(min(xs))] == 0.0


@given(st.floats(1e-3, 1e12), st.integers(1, 6))
def test_a_zero_width_range_costs_nothing(value, count):
    assert fair_ols.min_max([value] * count) == [0.0] * count


def test_worked_by_hand():
    accuracy, energy, time = fair_ols.normalise_costs([0.7, 0.9], [100.0, 300.0], [4.0, 2.0])
    assert accuracy == pytest.approx([0.3, 0.1], abs=1e-15)
    assert energy == pytest.approx([0.0, 200 / (200 + 1e-9)], rel=1e-15)
    assert time == pytest.approx([2 / (2 + 1e-9), 0.0], rel=1e-15)
    # eps is part of the contract: at a width of 1e-9 it halves the cost
    assert fair_ols.min_max([0.0, 1e-9]) == [0.0, 0.5]


@given(st.lists(st.tuples(accuracies, st.floats(1e-3, 1e9), st.floats(1e-3, 1e9)), min_size=1))
def test_each_metric_is_normalised_by_itself(rows):
    accuracy, joules, seconds = zip(*rows, strict=True)
    costs = fair_ols.normalise_costs(accuracy, joules, seconds)
    assert costs == (
        [1.0 - value for value in accuracy],
        fair_ols.min_max(joules),
        fair_ols.min_max(seconds),
    )
