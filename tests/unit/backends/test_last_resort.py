"""Who may be asked where nobody is available, and how a backend comes back, under a fake clock."""

import random

import pytest

from backends.registry import Backend, Deployment, group_backends, list_backends
from tests.manual_clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock(1000.0)


@pytest.fixture
def pair(clock):
    """Two backends of one model, both seen well."""
    made = [Backend(f"http://{name}", clock=clock) for name in "ab"]
    deploy(("m", made))
    for backend in made:
        backend.record_probe(well=True)
    return made


def deploy(*served):
    made = [
        Deployment(name, name, name, backends, rng=random.Random(1)) for name, backends in served
    ]
    group_backends(made)
    return made


def fail(backend, *, answered, times=5):
    for _ in range(times):
        backend.record_failure("no", answered=answered)


def test_one_ejected_for_its_answers_is_a_last_resort_and_one_that_is_gone_is_not(pair):
    a, b = pair
    fail(a, answered=True)
    fail(b, answered=False)
    assert (a.is_available, a.is_last_resort, a.is_in_use) == (False, True, True)
    assert (b.is_available, b.is_last_resort, b.is_in_use) == (False, False, False)


def test_while_another_serves_one_ejected_for_its_answers_is_not_in_use(pair):
    a, _ = pair
    fail(a, answered=True)
    assert not a.is_in_use


def test_the_last_failure_says_what_it_was(pair):
    a, _ = pair
    fail(a, answered=True)
    a.record_failure("refused")
    assert not a.is_last_resort


def test_a_failed_probe_says_that_it_is_gone(pair):
    a, _ = pair
    fail(a, answered=True)
    a.record_probe(well=False)
    assert not a.is_last_resort


def test_a_good_probe_shortens_no_ejection_for_what_was_answered(pair, clock):
    a, _ = pair
    fail(a, answered=True)
    clock.now += 1.0
    a.record_probe(well=True)
    assert not a.is_half_open
    clock.now += 29.0
    assert (a.is_available, a.is_in_use) == (True, True)


def test_a_good_probe_opens_one_that_was_gone_half_while_another_serves(pair, clock):
    a, _ = pair
    fail(a, answered=False)
    clock.now += 1.0
    a.record_probe(well=True)
    assert (a.is_ejected, a.is_available, a.is_in_use) == (True, True, True)
    a.begin_request()
    assert not a.is_available


@pytest.mark.parametrize("answered", [True, False])
def test_a_good_probe_readmits_one_at_once_where_no_other_serves(pair, clock, answered):
    a, b = pair
    fail(a, answered=answered)
    fail(b, answered=False)
    clock.now += 1.0
    a.record_probe(well=True)
    assert not a.is_ejected
    assert [a.begin_request() for _ in range(8)] == [0] * 8
    # The other is not alone any more: one at a time.
    b.record_probe(well=True)
    assert (b.is_ejected, b.is_available, b.is_in_use) == (True, True, True)


def test_the_only_one_that_was_never_seen_well_is_in_use_at_its_first_good_probe(clock):
    only = Backend("http://a", clock=clock)
    deploy(("m", [only]))
    only.record_probe(well=False)
    assert (only.is_available, only.is_in_use) == (False, False)
    only.record_probe(well=True)
    assert (only.is_ejected, only.is_in_use) == (False, True)
    assert [only.begin_request() for _ in range(8)] == [0] * 8


def test_half_open_by_time_alone_is_not_in_use_if_probes_fail(pair, clock):
    a, _ = pair
    fail(a, answered=False)
    a.record_probe(well=False)
    clock.now += 31.0
    assert (a.is_half_open, a.is_in_use, a.is_last_resort) == (True, False, False)


def test_half_open_and_well_is_a_last_resort_while_its_trial_runs(pair, clock):
    a, b = pair
    fail(a, answered=False)
    clock.now += 1.0
    a.record_probe(well=True)
    a.begin_request()
    fail(b, answered=False)
    assert (a.is_available, a.is_last_resort) == (False, True)


def test_one_that_serves_the_only_copy_of_any_model_is_alone(clock):
    shared, other = Backend("http://a", clock=clock), Backend("http://b", clock=clock)
    made = deploy(("base", [shared, other]), ("lora", [shared]))
    assert list_backends(made) == [shared, other]
    assert (shared.is_alone, other.is_alone) == (True, False)


def test_a_wait_is_over_when_it_is_over(pair, clock):
    a, _ = pair
    a.record_retry_after(5.0, 429)
    assert (a.wait_seconds, a.is_available) == (5.0, False)
    clock.now += 2.0
    a.record_retry_after(1.0, 503)
    assert (a.wait_seconds, a.wait_status) == (1.0, 503)
    a.record_retry_after(None, 429)
    assert a.wait_seconds == 1.0
    clock.now += 1.0
    assert (a.wait_seconds, a.is_available) == (0.0, True)


def test_a_model_that_was_missing_is_tried_by_one_request_at_a_time(clock, pair):
    (made,) = deploy(("m", pair))
    for _ in range(5):
        made.record_missing(pair[0])
    assert not made.can_ask(pair[0])
    assert made.begin_trial(pair[0]) == 0
    clock.now += 30.0
    assert made.can_ask(pair[0])
    trial = made.begin_trial(pair[0])
    assert not made.can_ask(pair[0])
    assert made.can_ask(pair[1])
    # It ended in neither a 404 nor an answer.
    made.end_trial(pair[0], trial)
    assert made.can_ask(pair[0])
    trial = made.begin_trial(pair[0])
    made.record_found(pair[0])
    made.end_trial(pair[0], trial)
    assert made.can_ask(pair[0])
    assert made.begin_trial(pair[0]) == 0
