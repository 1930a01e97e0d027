"""A line by relative loss: what it finds, what it refuses, and that sums are enough for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.library.relative_fit import fit_pairs, leave_one_out, solve_line, sum_points

pairs = st.lists(
    st.tuples(st.floats(0.01, 100.0), st.floats(0.01, 100.0)),
    min_size=3,
    max_size=12,
    unique_by=lambda pair: round(pair[0], 1),
)


def direct_loss(found, a, b):
    return sum(((a + b * x - y) / y) ** 2 for x, y in found)


def test_points_on_a_line_give_that_line_and_no_error_where_left_out():
    line = [(1.0 / batch, 0.09 + 5.0 / batch) for batch in (8, 16, 64, 256)]
    assert fit_pairs(line) == pytest.approx((0.09, 5.0))
    assert leave_one_out(line) == pytest.approx([0.0] * 4, abs=1e-9)


def test_a_relative_error_weighs_the_same_at_every_size():
    # Ten percent too high at the dear end and ten percent at the cheap one pull alike.
    line = [(1.0, 1.0), (2.0, 2.0), (100.0, 100.0)]
    bent = [fit_pairs([(x, y * (1.1 if x == at else 1.0)) for x, y in line]) for at in (1.0, 100.0)]
    gains = [b - 1.0 for _, b in bent]
    assert max(map(abs, gains)) < 0.15
    assert all(abs(a + b * 2.0 - 2.0) / 2.0 < 0.1 for a, b in bent)


@given(pairs)
def test_nothing_near_it_loses_less(found):
    sums = sum_points(found)
    a, b = solve_line(sums)
    assert a >= 0.0
    assert b >= 0.0
    least = direct_loss(found, a, b)
    assert sums.relative_loss(a, b) == pytest.approx(least, rel=1e-6, abs=1e-6)
    for step_a in (-1e-3, 0.0, 1e-3):
        for step_b in (-1e-3, 0.0, 1e-3):
            near = direct_loss(found, max(0.0, a + step_a), max(0.0, b + step_b))
            assert near >= least * (1.0 - 1e-6) - 1e-9


@given(pairs)
def test_without_a_bound_in_force_it_is_weighted_least_squares(found):
    x, y = map(np.array, zip(*found, strict=True))
    a, b = np.linalg.lstsq(np.column_stack([1.0 / y, x / y]), np.ones(len(x)), rcond=None)[0]
    if a > 1e-6 and b > 1e-6:
        assert fit_pairs(found) == pytest.approx((a, b), rel=1e-4)


def test_a_cost_that_falls_with_load_is_held_at_none():
    assert fit_pairs([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)])[1] == 0.0


@pytest.mark.parametrize("found", [[(1.0, 2.0)], [(2.0, 2.0), (2.0, 3.0)]])
def test_one_load_is_no_line(found):
    with pytest.raises(ValueError, match="two loads"):
        fit_pairs(found)


def test_a_cost_of_nothing_is_refused():
    with pytest.raises(ValueError, match="above zero"):
        sum_points([(1.0, 0.0)])
