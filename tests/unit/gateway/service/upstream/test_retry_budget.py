"""The retry budget: 20 % of what is in flight, at least 3 at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.service.upstream.retry_budget import RetryBudget


def taken(budget, tries=1000):
    return sum(budget.take() for _ in range(tries))


@pytest.mark.parametrize(
    ("inflight", "allowed"), [(0, 3), (1, 3), (15, 3), (16, 4), (100, 20), (101, 21)]
)
def test_how_many_may_retry_at_once(inflight, allowed):
    budget = RetryBudget()
    budget.inflight = inflight
    assert taken(budget) == allowed
    assert budget.retrying == allowed


def test_a_retry_that_ends_makes_room():
    budget = RetryBudget()
    assert taken(budget) == 3
    budget.retrying -= 1
    assert (budget.take_token(), budget.take_token()) == (True, False)


def test_more_traffic_makes_room():
    budget = RetryBudget(ratio=0.5, floor=1)
    assert taken(budget) == 1
    budget.inflight = 10
    assert taken(budget) == 4


def test_a_budget_of_nothing():
    budget = RetryBudget(ratio=0.0, floor=0)
    budget.inflight = 1000
    assert not budget.take_token()
    assert budget.retrying == 0


@given(st.floats(0.0, 1.0), st.integers(0, 10), st.lists(st.integers(0, 200), max_size=30))
def test_it_is_never_overdrawn(ratio, floor, loads):
    budget = RetryBudget(ratio, floor)
    for load in loads:
        budget.inflight = load
        before = budget.retrying
        if budget.take_token():
            assert before < max(floor, ratio * load)
            assert budget.retrying == before + 1
        else:
            assert budget.retrying == before
