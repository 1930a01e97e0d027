"""The retry budget: a fifth of a token a request, ten at most, three in advance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.service.upstream.retry_budget import RetryBudget


def taken(budget, tries=1000):
    return sum(budget.take_token() for _ in range(tries))


def after(requests, **fields):
    budget = RetryBudget(**fields)
    for _ in range(requests):
        budget.earn_token()
    return budget


@pytest.mark.parametrize(
    ("requests", "tokens"), [(0, 3), (1, 3), (15, 3), (20, 4), (50, 10), (10_000, 10)]
)
def test_what_requests_earn(requests, tokens):
    assert taken(after(requests)) == tokens


def test_five_requests_earn_one():
    budget = after(15)
    assert taken(budget) == 3
    for _ in range(4):
        budget.earn_token()
        assert not budget.take_token()
    budget.earn_token()
    assert (budget.take_token(), budget.take_token()) == (True, False)


@pytest.mark.parametrize("requests", [15, 16, 100, 400, 5000])
@pytest.mark.parametrize("greed", [1, 2, 3])
def test_in_a_storm_there_are_at_most_a_fifth_as_many_retries_as_requests(requests, greed):
    budget = RetryBudget()
    retries = 0
    for _ in range(requests):
        budget.earn_token()
        retries += sum(budget.take_token() for _ in range(greed))
    assert retries <= 0.2 * requests
    assert retries >= 0.2 * requests - 1


def test_a_budget_of_nothing():
    assert taken(after(1000, ratio=0.0, start=0.0)) == 0


@given(st.floats(0.0, 1.0), st.integers(0, 10), st.lists(st.booleans(), max_size=200))
def test_it_is_never_overdrawn(ratio, start, turns):
    budget = RetryBudget(ratio, start)
    earned = start
    for earns in turns:
        if earns:
            budget.earn_token()
            earned += ratio
        else:
            earned -= budget.take_token()
        assert earned >= -1e-6
        assert -1e-6 <= budget.tokens <= max(10, start)
