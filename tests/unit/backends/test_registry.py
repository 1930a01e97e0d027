"""A backend's state under a fake clock: usable, ejected, half-open, usable again."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.registry import Backend, Deployment, Ejection


class Clock:
    """Time that stands until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def pass_seconds(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def backend(clock):
    made = Backend("http://a:8000", clock=clock)
    made.probed(well=True)
    return made


def fail(backend, times=5):
    for _ in range(times):
        backend.failed()


def out_for(backend, clock):
    """Pass time until the backend is usable again; return how long that took."""
    waited = 0.0
    while not backend.usable:
        clock.pass_seconds(0.5)
        waited += 0.5
    return waited


def trial_fails(backend):
    trial = backend.begin()
    backend.failed()
    backend.end(trial=trial)


def test_who_it_is():
    backend = Backend("http://a:8000/vllm", api_key="k")
    assert backend.label == "a:8000/vllm"
    assert backend.headers == {"Authorization": "Bearer k"}
    assert str(backend.url("/v1/models")) == "http://a:8000/vllm/v1/models"
    assert backend.url("/v1/models") is backend.url("/v1/models")
    assert Backend("http://a").headers == {}


def test_five_failures_in_a_row_eject(backend):
    fail(backend, 4)
    assert backend.usable
    assert backend.ejections == 0
    backend.failed()
    assert not backend.usable
    assert backend.ejected
    assert backend.ejections == 1


def test_a_success_between_them_starts_the_count_anew(backend):
    fail(backend, 4)
    backend.succeeded()
    fail(backend, 4)
    assert backend.usable
    backend.failed()
    assert not backend.usable


def test_it_is_left_alone_for_30_seconds_doubling_to_300(backend, clock):
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
    assert backend.usable
    assert backend.ejected
    trial = backend.begin()
    assert not backend.usable
    backend.end(trial=trial)
    assert backend.usable


def test_a_request_from_before_the_ejection_makes_no_room_for_a_second_trial(backend, clock):
    old = backend.begin()
    fail(backend)
    clock.pass_seconds(30.0)
    trial = backend.begin()
    backend.end(trial=old)
    assert not backend.usable
    backend.end(trial=trial)
    assert backend.usable


def test_a_trial_of_an_earlier_ejection_makes_no_room_for_a_second_trial(backend, clock):
    fail(backend)
    clock.pass_seconds(30.0)
    long_stream = backend.begin()
    backend.succeeded()
    fail(backend)
    clock.pass_seconds(300.0)
    trial = backend.begin()
    backend.end(trial=long_stream)
    assert not backend.usable
    backend.end(trial=trial)


def test_a_trial_that_succeeds_opens_it(backend, clock):
    fail(backend)
    clock.pass_seconds(30.0)
    trial = backend.begin()
    backend.succeeded()
    assert backend.usable
    assert not backend.ejected
    backend.end(trial=trial)
    fail(backend, 4)
    assert backend.usable


def test_success_resets_how_long_it_is_left_alone(backend, clock):
    fail(backend)
    for _ in range(3):
        out_for(backend, clock)
        trial_fails(backend)
    out_for(backend, clock)
    for _ in range(2):
        backend.succeeded()
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
    backend.probed(well=False)
    assert not backend.usable
    backend.probed(well=True)
    assert backend.usable
    assert backend.ejected
    backend.begin()
    assert not backend.usable


def test_failed_probes_eject_as_failed_requests_do(backend):
    for _ in range(4):
        backend.probed(well=False)
    assert backend.usable
    backend.probed(well=False)
    assert not backend.usable


def test_one_that_was_never_seen_well_is_out_at_its_first_failed_probe(clock):
    backend = Backend("http://a", clock=clock)
    assert backend.usable
    backend.probed(well=False)
    assert not backend.usable
    assert out_for(backend, clock) == 30.0


def test_the_numbers_come_from_the_config(clock):
    ejection = Ejection(after_failures=1, first_seconds=2.0, max_seconds=3.0)
    backend = Backend("http://a", ejection=ejection, clock=clock)
    backend.failed()
    waits = [out_for(backend, clock)]
    trial_fails(backend)
    waits.append(out_for(backend, clock))
    assert waits == [2.0, 3.0]


events = st.lists(st.sampled_from(["ok", "bad", "well", "ill", "wait", "long wait"]), max_size=60)


@given(events)
def test_whatever_happens_it_comes_back_within_the_longest_ejection(script):
    clock = Clock()
    backend = Backend("http://a", clock=clock)
    in_a_row = 0
    for event in script:
        before = backend.ejected
        match event:
            case "ok":
                backend.succeeded()
            case "bad":
                backend.failed()
            case "well" | "ill":
                backend.probed(well=event == "well")
            case "wait" | "long wait":
                clock.pass_seconds(1.0 if event == "wait" else 60.0)
        in_a_row = in_a_row + 1 if event in {"bad", "ill"} else 0 if event == "ok" else in_a_row
        if event == "ok":
            assert backend.usable
        if backend.ejected and not before and backend.proven:
            assert in_a_row >= 5
        assert backend.usable or backend.ejected
    clock.pass_seconds(300.0)
    assert backend.usable


# --- choosing ----------------------------------------------------------------------------------


def deployment(*loads, seed=0):
    backends = [Backend(f"http://b{number}") for number in range(len(loads))]
    for backend, load in zip(backends, loads, strict=True):
        for _ in range(load):
            backend.begin()
    return Deployment("m", "m", "m", backends, rng=random.Random(seed))


def picks(made, times=400, tried=()):
    return [made.backends.index(made.pick(tried)) for _ in range(times)]


def test_the_less_busy_of_two():
    assert set(picks(deployment(3, 2))) == {1}
    assert set(picks(deployment(0, 1))) == {0}


def test_equals_share():
    chosen = picks(deployment(2, 2))
    assert 120 < chosen.count(0) < 280


def test_the_busiest_of_many_is_never_chosen_and_the_idlest_most():
    chosen = picks(deployment(0, 1, 2, 9))
    counts = [chosen.count(index) for index in range(4)]
    assert counts[3] == 0
    # Drawn in pairs: 3/6, 2/6, 1/6, 0.
    assert counts[0] > counts[1] > counts[2] > 0


def test_those_out_and_those_tried_are_not_chosen():
    made = deployment(0, 1, 2)
    for _ in range(5):
        made.backends[0].failed()
    assert set(picks(made)) == {1}
    assert set(picks(made, tried=[made.backends[1]])) == {2}
    assert made.pick(made.backends) is None


def test_the_same_seed_chooses_the_same():
    assert picks(deployment(1, 1, 1, seed=5)) == picks(deployment(1, 1, 1, seed=5))


def test_a_load_is_this_processs_and_that_of_others():
    (only,) = deployment(3).backends
    assert only.load == (3, 0)
    only.seen(8.0, 0.0, own=3)
    assert only.load == (8, 0)
    only.begin()
    assert only.load == (9, 0)
    only.end()
    only.seen(2.0, 0.0, own=3)  # a gauge that lags claims nothing
    assert only.load == (3, 0)
    only.seen(None, None, own=3)
    assert only.load == (3, 0)


def test_a_queue_that_was_seen_grows_by_what_is_sent_since():
    (only,) = deployment(6).backends
    only.seen(4.0, 2.0, own=6)
    assert only.load == (4, 2)
    only.begin()
    assert only.load == (4, 3)
    for _ in range(7):
        only.end()
    assert only.load == (0, 0)
    only.begin()
    only.seen(1.0, 0.0, own=1)
    assert only.load == (1, 0)


def test_the_less_loaded_is_picked_whoever_loads_it():
    made = deployment(1, 3)
    made.backends[0].seen(9.0, 0.0, own=1)
    assert set(picks(made)) == {1}


def test_a_deployment_of_one():
    made = deployment(3)
    assert made.pick() is made.backends[0]
    assert made.pick(made.backends) is None
    for _ in range(5):
        made.backends[0].failed()
    assert made.pick() is None
