"""Every transition of the circuit breaker's diagram, under a fake clock."""

import pytest

from backends.circuit_breaker import CircuitBreaker
from tests.manual_clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock(1000.0)


@pytest.fixture
def healthy(clock):
    breaker = CircuitBreaker("a:8000", clock=clock)
    probe(breaker, well=True)
    return breaker


@pytest.fixture
def ejected(healthy):
    fail(healthy, 5)
    assert read_state(healthy) == "ejected"
    return healthy


@pytest.fixture
def half_open(ejected, clock):
    clock.pass_seconds(30.0)
    assert read_state(ejected) == "half-open"
    return ejected


def fail(breaker, times, *, answered=False):
    for _ in range(times):
        breaker.record_failure("status_5xx", answered=answered)


def probe(breaker, *, well, alone=False):
    breaker.note_probe(well=well, why="probe", alone=alone)


def read_state(breaker):
    if breaker.is_half_open:
        return "half-open"
    return "ejected" if breaker.is_ejected else "healthy"


def test_healthy_to_ejected_after_failures_in_a_row(healthy):
    fail(healthy, 4)
    healthy.record_success()
    fail(healthy, 4)
    assert read_state(healthy) == "healthy"
    fail(healthy, 1)
    assert (read_state(healthy), healthy.ejections) == ("ejected", 1)


def test_healthy_to_ejected_when_a_probe_fails_before_anything_was_ever_well(clock):
    unseen = CircuitBreaker("a:8000", clock=clock)
    probe(unseen, well=False)
    assert read_state(unseen) == "ejected"


def test_healthy_stays_healthy_when_one_probe_fails(healthy):
    probe(healthy, well=False)
    assert read_state(healthy) == "healthy"


def test_ejected_to_half_open_when_its_time_is_over(ejected, clock):
    clock.pass_seconds(29.9)
    assert (read_state(ejected), ejected.is_closed) == ("ejected", False)
    clock.pass_seconds(0.1)
    assert (read_state(ejected), ejected.is_closed) == ("half-open", True)


def test_ejected_to_half_open_at_a_good_probe_after_it_could_not_be_reached(ejected):
    probe(ejected, well=True)
    assert read_state(ejected) == "half-open"


def test_ejected_stays_ejected_at_a_good_probe_after_what_it_answered(healthy):
    fail(healthy, 5, answered=True)
    probe(healthy, well=True)
    assert read_state(healthy) == "ejected"


def test_ejected_stays_ejected_no_longer_when_earlier_requests_fail(ejected, clock):
    fail(ejected, 20)
    assert ejected.ejections == 1
    clock.pass_seconds(30.0)
    assert read_state(ejected) == "half-open"


@pytest.mark.parametrize("answered", [True, False])
def test_ejected_to_healthy_at_a_good_probe_where_nobody_else_can_serve(healthy, answered):
    fail(healthy, 5, answered=answered)
    probe(healthy, well=True, alone=True)
    assert read_state(healthy) == "healthy"


def test_half_open_lets_one_request_at_a_time_through(half_open):
    trial = half_open.begin_trial()
    assert (trial, half_open.is_closed) == (1, False)
    half_open.end_trial(trial)
    assert half_open.is_closed


def test_half_open_to_healthy_when_a_response_came(half_open):
    trial = half_open.begin_trial()
    half_open.record_success()
    half_open.end_trial(trial)
    fail(half_open, 4)
    assert read_state(half_open) == "healthy"


def test_half_open_to_healthy_at_a_streams_first_content_but_for_one_failure(half_open):
    half_open.record_first_content()
    assert read_state(half_open) == "healthy"
    fail(half_open, 1)
    assert read_state(half_open) == "ejected"


def test_half_open_to_ejected_for_twice_as_long_when_the_trial_fails(half_open, clock):
    trial = half_open.begin_trial()
    fail(half_open, 1)
    half_open.end_trial(trial)
    clock.pass_seconds(59.9)
    assert (read_state(half_open), half_open.ejections) == ("ejected", 2)
    clock.pass_seconds(0.1)
    assert read_state(half_open) == "half-open"
