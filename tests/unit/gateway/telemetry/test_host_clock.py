"""A server's watts divided among the requests that it serves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.host_clock import HostClock


def test_a_request_alone_has_all_of_it():
    clock = HostClock(100.0, 0.0)
    mark = clock.begin_request(2.0)
    assert clock.end_request(mark, 5.0) == pytest.approx(300.0)
    assert clock.take_idle_joules(6.0) == pytest.approx(300.0)
    assert clock.take_idle_joules(6.0) == 0.0


def test_company_shares_it_moment_by_moment():
    clock = HostClock(120.0, 0.0)
    first = clock.begin_request(0.0)
    second = clock.begin_request(1.0)
    third = clock.begin_request(2.0)
    assert clock.end_request(first, 3.0) == pytest.approx(120 + 60 + 40)
    assert clock.end_request(third, 4.0) == pytest.approx(40 + 60)
    assert clock.end_request(second, 5.0) == pytest.approx(60 + 40 + 60 + 120)
    assert clock.take_idle_joules(5.0) == 0.0


def test_thirty_at_once_are_not_charged_more_than_there_is():
    clock = HostClock(200.0, 0.0)
    marks = [clock.begin_request(0.0) for _ in range(30)]
    assert sum(clock.end_request(mark, 3.0) for mark in marks) == pytest.approx(600.0)


def test_time_that_goes_back_is_no_time():
    clock = HostClock(100.0, 10.0)
    mark = clock.begin_request(9.0)
    assert clock.end_request(mark, 10.0) == 0.0
    assert clock.take_idle_joules(8.0) == 0.0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="negative"):
        HostClock(-1.0, 0.0)
    with pytest.raises(ValueError, match="no request"):
        HostClock(1.0, 0.0).end_request(0.0, 1.0)


@given(
    st.floats(0.0, 2000.0),
    st.lists(st.tuples(st.floats(0.0, 50.0), st.floats(0.0, 20.0)), max_size=30),
)
def test_nothing_is_lost_and_nothing_is_made(watts, spans):
    """Parts + idle = watts x seconds, whoever comes and goes."""
    moves = [(begin, 1, at) for at, (begin, _) in enumerate(spans)]
    moves += [(begin + seconds, 2, at) for at, (begin, seconds) in enumerate(spans)]
    clock = HostClock(watts, 0.0)
    marks, parts, idle = {}, [], 0.0
    for now, what, at in sorted(moves):
        if what == 1:
            marks[at] = clock.begin_request(now)
        else:
            parts.append(clock.end_request(marks[at], now))
        idle += clock.take_idle_joules(now)
    idle += clock.take_idle_joules(100.0)
    assert all(part >= 0.0 for part in parts)
    assert sum(parts) + idle == pytest.approx(watts * 100.0, abs=1e-6)
