"""The hybrid pipeline: its five stages written out again, and what must hold of them."""

import math
import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.scheduling.hybrid import normalise_costs, rebase_costs

values = st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=8)
wild = st.lists(st.floats(0.0, 1.7e308), min_size=1, max_size=6)


def stages(xs):
    """z-score (population sd), sgn(z) log1p(|z|), min-max, softmax, unit variance with best 0."""
    if len(set(xs)) == 1:
        return [0.0] * len(xs)
    mean, sd = statistics.mean(xs), statistics.pstdev(xs)
    z = [(x - mean) / sd for x in xs]
    logs = [math.log1p(v) if v >= 0 else -math.log1p(-v) for v in z]
    unit = [(v - min(logs)) / (max(logs) - min(logs)) for v in logs]
    soft = [math.exp(v) / sum(math.exp(u) for u in unit) for v in unit]
    return [(v - min(soft)) / statistics.pstdev(soft) for v in soft]


def spread_enough(xs):
    return max(xs) - min(xs) > 1e-6 * max(xs)


@given(values)
def test_the_five_stages(xs):
    assume(len(set(xs)) == 1 or spread_enough(xs))
    assert rebase_costs(xs) == pytest.approx(stages(xs), rel=1e-6, abs=1e-6)


def test_worked_by_hand():
    # z = (-1.224745, 0, 1.224745); log1p -> (-0.799643, 0, 0.799643); min-max -> (0, 1/2, 1);
    # softmax -> (0.186324, 0.307196, 0.506480), sd 0.132005
    assert rebase_costs([1.0, 2.0, 3.0]) == pytest.approx([0.0, 0.915673, 2.425362], abs=2e-6)
    # Two candidates are always one population sd either side of their mean.
    assert rebase_costs([5.0, 4.0]) == pytest.approx([2.0, 0.0], rel=1e-12)


@given(values)
def test_the_order_of_the_input_is_kept(xs):
    out = rebase_costs(xs)
    for x, cost_x in zip(xs, out, strict=True):
        for y, cost_y in zip(xs, out, strict=True):
            if x < y:
                assert cost_x <= cost_y
            elif x == y:
                assert cost_x == cost_y


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=8, unique=True))
def test_distinct_values_stay_distinct(xs):
    out = rebase_costs([float(x) for x in xs])
    assert sorted(range(len(xs)), key=out.__getitem__) == sorted(range(len(xs)), key=xs.__getitem__)
    assert len(set(out)) == len(out)


@given(values, st.floats(1e-12, 1e12))
def test_the_unit_does_not_matter(xs, factor):
    assume(len(set(xs)) == 1 or spread_enough(xs))
    assert rebase_costs([x * factor for x in xs]) == pytest.approx(
        rebase_costs(xs), rel=1e-6, abs=1e-6
    )


@given(st.floats(0.0, 1e300), st.integers(1, 8))
def test_equal_values_and_one_candidate_cost_nothing(value, count):
    assert rebase_costs([value] * count) == [0.0] * count


def test_a_width_of_rounding_noise_is_no_width():
    third = 1.0 / 3.0
    assert rebase_costs([third, math.nextafter(third, 1.0)]) == [0.0, 0.0]


@given(values)
def test_the_best_costs_nothing_and_the_variance_is_one(xs):
    assume(spread_enough(xs))
    out = rebase_costs(xs)
    assert min(out) == 0.0
    assert out[xs.index(min(xs))] == 0.0
    assert statistics.pstdev(out) == pytest.approx(1.0, rel=1e-9)


@given(wild)
def test_no_finite_input_gives_nan_or_a_negative(xs):
    assert all(math.isfinite(cost) and cost >= 0.0 for cost in rebase_costs(xs))


def test_accuracy_enters_as_its_cost():
    accuracy, energy, time = normalise_costs([0.9, 0.6, 0.7], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0])
    assert accuracy == pytest.approx(stages([0.1, 0.4, 0.3]), rel=1e-9, abs=1e-9)
    assert accuracy[0] == 0.0
    assert energy == pytest.approx(stages([3.0, 2.0, 1.0]), rel=1e-9)
    assert time == [0.0, 0.0, 0.0]
