"""Budgets: periods by UTC, and the bound on what is spent past a limit."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.service.callers.budget_ledger import (
    BudgetBalance,
    BudgetCharge,
    BudgetLedger,
    BudgetSettlement,
    BudgetWindow,
    find_period,
)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("window", "now", "name", "ends"),
    [
        ("hour", "2026-02-28T23:59:59", "2026-02-28T23", "2026-03-01T00:00:00"),
        ("day", "2026-12-31T12:00:00", "2026-12-31", "2027-01-01T00:00:00"),
        ("month", "2028-02-29T00:00:00", "2028-02", "2028-03-01T00:00:00"),
        ("month", "2026-01-31T23:59:59", "2026-01", "2026-02-01T00:00:00"),
        ("month", "2026-12-01T00:00:00", "2026-12", "2027-01-01T00:00:00"),
    ],
)
def test_a_period_ends_where_the_next_begins(window, now, name, ends):
    period = find_period(BudgetWindow(window), at(now))
    assert (period.name, period.ends_at) == (name, at(ends))
    assert find_period(BudgetWindow(window), period.ends_at).name != name
    assert find_period(BudgetWindow(window), period.ends_at - 1).name == name


def charge(amount, limit=100, *, soft=False, account="a"):
    return BudgetCharge(account, amount, limit, soft, 1e9)


def settlement(request, amount, *, reserved=True, account="a"):
    return BudgetSettlement(request, ((account, 0, amount),), reserved, 1e9)


def test_what_does_not_fit_reserves_nothing_of_any():
    ledger = BudgetLedger()
    both = [charge(60, account="a"), charge(60, 50, account="b")]
    assert ledger.reserve_amounts("r", both, 10, 0).refused == 1
    assert ledger.read_balances(["a", "b"], 0) == [BudgetBalance(), BudgetBalance()]


def test_a_soft_one_takes_it_and_says_so():
    ledger = BudgetLedger()
    verdict = ledger.reserve_amounts("r", [charge(60), charge(9, 1, soft=True, account="b")], 10, 0)
    assert (verdict.refused, verdict.passed) == (None, (1,))
    assert ledger.read_balances(["b"], 0) == [BudgetBalance(0, 9)]


def test_what_was_left_over_is_given_back():
    ledger = BudgetLedger()
    assert ledger.reserve_amounts("r", [charge(90)], 10, 0).refused is None
    assert ledger.reserve_amounts("s", [charge(20)], 10, 0).refused == 0
    ledger.settle_amounts(settlement("r", 30))
    assert ledger.reserve_amounts("s", [charge(20)], 10, 0).refused is None
    assert ledger.read_balances(["a"], 0) == [BudgetBalance(30, 20)]


def test_an_expired_reservation_counts_as_spent_and_is_not_counted_again():
    ledger = BudgetLedger()
    ledger.reserve_amounts("r", [charge(90)], 10, 0)
    assert ledger.read_balances(["a"], 10) == [BudgetBalance(90, 0)]
    ledger.settle_amounts(settlement("r", 30))
    ledger.settle_amounts(settlement("r", 30))
    assert ledger.read_balances(["a"], 10) == [BudgetBalance(90, 0)]


def test_what_was_never_reserved_counts_when_it_is_settled():
    ledger = BudgetLedger()
    ledger.settle_amounts(settlement("r", 30, reserved=False))
    assert ledger.read_balances(["a"], 0) == [BudgetBalance(30, 0)]


def test_ended_accounts_are_forgotten_once_nothing_is_awaited():
    ledger = BudgetLedger()
    ledger.reserve_amounts("r", [BudgetCharge("a", 5, 100, False, 50)], 200, 0)
    ledger.forget_ended(100)
    assert ledger.read_balances(["a"], 100) == [BudgetBalance(0, 5)]
    ledger.settle_amounts(settlement("r", 5))
    ledger.forget_ended(100)
    assert ledger.read_balances(["a"], 100) == [BudgetBalance()]


_STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 60), st.integers(0, 120), st.booleans()),
    max_size=60,
)


@given(steps=_STEPS, limit=st.integers(1, 200))
def test_a_limit_is_passed_by_no_more_than_was_beyond_reservations_in_flight(steps, limit):
    ledger = BudgetLedger()
    running: dict[str, tuple[int, int]] = {}
    total = beyond = 0
    for n, (_, held, takes, ends) in enumerate(steps):
        name = f"r{n}"
        if ledger.reserve_amounts(name, [charge(held, limit)], 1e9, 0).refused is None:
            running[name] = held, takes
        if ends and running:
            # Any of them, not the first that came.
            name = sorted(running)[n % len(running)]
            reserved, taken = running.pop(name)
            ledger.settle_amounts(settlement(name, taken))
            total += taken
            beyond += max(0, taken - reserved)
        (balance,) = ledger.read_balances(["a"], 0)
        assert balance.settled == total
        assert balance.reserved == sum(held for held, _ in running.values())
        assert balance.settled <= limit + beyond
    for name, (_, taken) in running.items():
        ledger.settle_amounts(settlement(name, taken))
        total += taken
    assert ledger.read_balances(["a"], 0) == [BudgetBalance(total, 0)] or total == 0
