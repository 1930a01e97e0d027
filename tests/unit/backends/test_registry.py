"""A backend's state under a fake clock: usable, ejected, half-open, usable again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.registry import Backend, EjectionPolicy
from tests.manual_clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock(1000.0)


@pytest.fixture
def backend(clock):
    made = Backend("http://a:8000", clock=clock)
    made.record_probe(well=True)
    return made


def fail(backend, times=5):
    for _ in range(times):
        backend.record_failure()


def out_for(backend, clock):
    """Pass time until the backend is usable again; return how long that took."""
    waited = 0.0
    while not backend.is_available:
        clock.pass_seconds(0.5)
        waited += 0.5
    return waited


def trial_fails(backend):
    trial = backend.begin_request()
    backend.record_failure()
    backend.end_request(trial=trial)


def test_who_it_is():
    backend = Backend("http://a:8000/vllm", api_key="k")
    assert backend.label == "a:8000/vllm"
    assert backend.headers == {"Authorization": "Bearer k"}
    assert str(backend.build_url("/v1/models")) == "http://a:8000/vllm/v1/models"
    assert backend.build_url("/v1/models") is backend.build_url("/v1/models")
    assert Backend("http://a").headers == {}


def test_five_failures_in_a_row_eject(backend):
    fail(backend, 4)
    assert backend.is_available
    assert backend.ejections == 0
    backend.record_failure()
    assert not backend.is_available
    assert backend.is_ejected
    assert backend.ejections == 1


def test_a_success_between_them_starts_the_count_anew(backend):
    fail(backend, 4)
    backend.record_success()
    fail(backend, 4)
    assert backend.is_available
    backend.record_failure()
    assert not backend.is_available


def test_it_is_ejected_for_30_seconds_doubling_to_300(backend, clock):
    fail(backend)
    waits = []
    for _ in range(7):
        waits.append(out_for(backend, clock))
        trial_fails(backend)
    assert waits == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0, 300.0]
    assert backend.ejections == 8


def test_one_request_at_a_time_while_half_open(backend, clock):
    fail(backend)
    clock.pass_seconds(30.0)
    assert backend.is_available
    assert backend.is_ejected
    trial = backend.begin_request()
    assert not backend.is_available
    backend.end_request(trial=trial)
    assert backend.is_available


def test_a_request_from_before_the_ejection_makes_no_room_for_a_second_trial(backend, clock):
    old = backend.begin_request()
    fail(backend)
    clock.pass_seconds(30.0)
    trial = backend.begin_request()
    backend.end_request(trial=old)
    assert not backend.is_available
    backend.end_request(trial=trial)
    assert backend.is_available


def test_a_trial_of_an_earlier_ejection_makes_no_room_for_a_second_trial(backend, clock):
    fail(backend)
    clock.pass_seconds(30.0)
    long_stream = backend.begin_request()
    backend.record_success()
    fail(backend)
    clock.pass_seconds(300.0)
    trial = backend.begin_request()
    backend.end_request(trial=long_stream)
    assert not backend.is_available
    backend.end_request(trial=trial)


def test_a_trial_that_succeeds_opens_it(backend, clock):
    fail(backend)
    clock.pass_seconds(30.0)
    trial = backend.begin_request()
    backend.record_success()
    assert backend.is_available
    assert not backend.is_ejected
    backend.end_request(trial=trial)
    fail(backend, 4)
    assert backend.is_available


def test_success_resets_how_long_it_is_ejected(backend, clock):
    fail(backend)
    for _ in range(3):
        out_for(backend, clock)
        trial_fails(backend)
    out_for(backend, clock)
    for _ in range(2):
        backend.record_success()
    fail(backend)
    assert out_for(backend, clock) == 30.0


def test_late_failures_do_not_prolong_an_ejection(backend, clock):
    fail(backend)
    clock.pass_seconds(20.0)
    fail(backend, 20)
    assert backend.ejections == 1
    assert out_for(backend, clock) == 10.0


def test_a_probe_opens_it_half_before_its_time(backend, clock):
    fail(backend)
    clock.pass_seconds(1.0)
    backend.record_probe(well=False)
    assert not backend.is_available
    backend.record_probe(well=True)
    assert backend.is_available
    assert backend.is_ejected
    backend.begin_request()
    assert not backend.is_available


def test_failed_probes_eject_as_failed_requests_do(backend):
    for _ in range(4):
        backend.record_probe(well=False)
    assert backend.is_available
    backend.record_probe(well=False)
    assert not backend.is_available


def test_one_that_was_never_seen_well_is_out_at_its_first_failed_probe(clock):
    backend = Backend("http://a", clock=clock)
    assert backend.is_available
    backend.record_probe(well=False)
    assert not backend.is_available
    assert out_for(backend, clock) == 30.0


def test_the_numbers_come_from_the_config(clock):
    ejection = EjectionPolicy(after_failures=1, first_seconds=2.0, max_seconds=3.0)
    backend = Backend("http://a", ejection=ejection, clock=clock)
    backend.record_failure()
    waits = [out_for(backend, clock)]
    trial_fails(backend)
    waits.append(out_for(backend, clock))
    assert waits == [2.0, 3.0]


events = st.lists(st.sampled_from(["ok", "bad", "well", "ill", "wait", "long wait"]), max_size=60)


@given(events)
def test_whatever_happens_it_comes_back_within_the_longest_ejection(script):
    clock = ManualClock(1000.0)
    backend = Backend("http://a", clock=clock)
    in_a_row = 0
    for event in script:
        before = backend.is_ejected
        match event:
            case "ok":
                backend.record_success()
            case "bad":
                backend.record_failure()
            case "well" | "ill":
                backend.record_probe(well=event == "well")
            case "wait" | "long wait":
                clock.pass_seconds(1.0 if event == "wait" else 60.0)
        in_a_row = in_a_row + 1 if event in {"bad", "ill"} else 0 if event == "ok" else in_a_row
        if event == "ok":
            assert backend.is_available
        if backend.is_ejected and not before and backend.proven_healthy:
            assert in_a_row >= 5
        assert backend.is_available or backend.is_ejected
    clock.pass_seconds(300.0)
    assert backend.is_available
