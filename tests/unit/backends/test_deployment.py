"""Which of its backends a deployment picks: the less loaded of two, whoever loads it."""

import random

from backends.registry import Backend, Deployment, group_backends


def deployment(*loads, seed=0):
    backends = [Backend(f"http://b{number}") for number in range(len(loads))]
    for backend, load in zip(backends, loads, strict=True):
        for _ in range(load):
            backend.begin_request()
    return Deployment("m", "m", "m", backends, rng=random.Random(seed))


def picks(made, times=400, tried=()):
    return [made.backends.index(made.pick_backend(tried)) for _ in range(times)]


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
        made.backends[0].record_failure()
    assert set(picks(made)) == {1}
    assert set(picks(made, tried=[made.backends[1]])) == {2}
    assert made.pick_backend(made.backends) is None


def test_the_same_seed_chooses_the_same():
    assert picks(deployment(1, 1, 1, seed=5)) == picks(deployment(1, 1, 1, seed=5))


def test_a_load_is_this_processs_and_that_of_others():
    (only,) = deployment(3).backends
    assert only.running_and_queued == (3, 0)
    only.record_gauges(8.0, 0.0, own=3)
    assert only.running_and_queued == (8, 0)
    only.begin_request()
    assert only.running_and_queued == (9, 0)
    only.end_request()
    only.record_gauges(2.0, 0.0, own=3)  # a gauge that lags claims nothing
    assert only.running_and_queued == (3, 0)
    only.record_gauges(None, None, own=3)
    assert only.running_and_queued == (3, 0)


def test_a_queue_that_was_seen_grows_by_what_is_sent_since():
    (only,) = deployment(6).backends
    only.record_gauges(4.0, 2.0, own=6)
    assert only.running_and_queued == (4, 2)
    only.begin_request()
    assert only.running_and_queued == (4, 3)
    for _ in range(7):
        only.end_request()
    assert only.running_and_queued == (0, 0)
    only.begin_request()
    only.record_gauges(1.0, 0.0, own=1)
    assert only.running_and_queued == (1, 0)


def test_the_less_loaded_is_picked_whoever_loads_it():
    made = deployment(1, 3)
    made.backends[0].record_gauges(9.0, 0.0, own=1)
    assert set(picks(made)) == {1}


def test_a_deployment_of_one():
    made = deployment(3)
    assert made.pick_backend() is made.backends[0]
    assert made.pick_backend(made.backends) is None
    for _ in range(5):
        made.backends[0].record_failure()
    assert made.pick_backend() is None


def test_who_has_a_peer():
    one, two, alone = (Backend(f"http://b{number}") for number in range(3))
    rng = random.Random(0)
    group_backends(
        [
            Deployment("m", "small", "m", [one], rng=rng),
            Deployment("m", "large", "m", [two], rng=rng),
            Deployment("n", "n", "n", [alone], rng=rng),
        ]
    )
    assert [one.has_peers, two.has_peers, alone.has_peers] == [True, True, False]
