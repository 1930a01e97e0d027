"""What a request's company was over its time: the mean of it, and its part of each step."""

import pytest

from backends.backend import Backend
from tests.manual_clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


def test_both_means_are_those_over_time(clock):
    backend = Backend("http://a", clock=clock)
    before = backend.integrate_load()
    for began, seconds in ((1, 3.0), (1, 1.0), (2, 4.0)):  # one, two, then four at once
        for _ in range(began):
            backend.begin_request()
        clock.now += seconds
    ran, shared = backend.integrate_load()
    assert ran - before.running_seconds == 1 * 3.0 + 2 * 1.0 + 4 * 4.0
    assert shared - before.share_seconds == 3.0 + 1.0 / 2 + 4.0 / 4
    # Whoever is not there has no company: alone is the least there can be.
    for _ in range(4):
        backend.end_request()
    idle = backend.integrate_load()
    clock.now += 5.0
    assert backend.integrate_load() == (idle.running_seconds, idle.share_seconds + 5.0)


def test_what_waits_in_line_shares_no_step(clock):
    backend = Backend("http://a", clock=clock)
    for _ in range(4):
        backend.begin_request()
    backend.record_gauges(2.0, 2.0, own=4)
    before = backend.integrate_load()
    clock.now += 8.0
    after = backend.integrate_load()
    assert after.running_seconds - before.running_seconds == 2 * 8.0
    assert after.share_seconds - before.share_seconds == 8.0 / 2
