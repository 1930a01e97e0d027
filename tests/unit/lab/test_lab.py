"""The lab itself: deterministic, conserving, and true to the engine it runs."""

import pytest

from tests.lab import H100, Arrival, Lab, LabBackend, Meter, Placed, bursts, poisson, twins

SHORT = poisson(rate=4.0, seconds=30.0, seed=3)


def outcome(run):
    return [(one.backend, one.truth, one.charged_microjoules, one.method) for one in run.requests]


def test_the_same_seed_gives_the_same_run():
    lab = Lab([LabBackend("a", H100)], seed=5)
    first, again = lab.run(SHORT), lab.run(SHORT)
    assert outcome(first) == outcome(again)
    assert first.counters == again.counters


@pytest.mark.parametrize("devices", [1, 2])
def test_every_microjoule_is_in_one_place_and_the_counter_is_what_engines_spent(devices):
    meter = Meter(devices=devices)
    backends = [LabBackend("a", H100), LabBackend("b", H100)]
    run = Lab(backends, meter=meter).run(SHORT)
    books = run.counters["gpu"]
    assert books.conserved
    assert books.unsettled_microjoules == 0
    assert books.advanced_microjoules >= books.true_busy_microjoules
    idle_watts = (books.advanced_microjoules - books.true_busy_microjoules) / 1e6 / run.seconds
    assert idle_watts < H100.idle_watts


def test_nothing_is_metered_where_it_is_off_and_the_truth_is_the_same():
    lab, without = Lab([LabBackend("a", H100)]), Lab([LabBackend("a", H100)], meter=Meter(off=True))
    assert [r.truth for r in lab.run(SHORT).requests] == [
        r.truth for r in without.run(SHORT).requests
    ]
    assert without.run(SHORT).measured() == []


def test_a_placement_chooses_the_backend_and_may_set_the_length():
    def place(arrival, loads):
        assert set(loads) == {"a", "b"}
        return Placed("b", tokens_out=7 if arrival.tokens_in % 2 else None)

    run = Lab([LabBackend("a", H100, gpu="0"), LabBackend("b", H100, gpu="1")], place=place).run(
        SHORT
    )
    assert {one.backend for one in run.requests} == {"b"}
    for one in run.requests:
        wanted = 7 if one.arrival.tokens_in % 2 else one.arrival.tokens_out
        assert one.truth.tokens_out == wanted
    assert run.counters["0"].request_microjoules == 0


def test_others_are_the_time_mean_of_the_company():
    arrivals = [Arrival(0.0, 100, 200), Arrival(0.0, 100, 200), Arrival(0.0, 100, 200)]
    run = Lab([LabBackend("a", H100)]).run(arrivals)
    assert [one.others for one in run.requests] == pytest.approx([2.0] * 3, abs=0.02)
    (alone,) = Lab([LabBackend("a", H100)]).run(arrivals[:1]).requests
    assert alone.others == pytest.approx(0.0, abs=1e-9)
    assert alone.truth.total_joules == pytest.approx(H100.total_joules(100, 200))
    assert alone.truth.seconds == pytest.approx(H100.total_seconds(100, 200))


def test_a_client_that_leaves_ends_its_request():
    arrivals = [Arrival(0.0, 100, 2000, leaves_after_seconds=1.0), Arrival(0.5, 100, 50)]
    run = Lab([LabBackend("a", H100)]).run(arrivals)
    left, stayed = run.requests
    assert left.truth.aborted
    assert left.ended_seconds == 1.0
    assert 0 < left.truth.tokens_out < 2000
    assert not stayed.truth.aborted


def test_what_a_class_adds_to_the_counters_is_what_it_is_charged_where_it_is_alone():
    arrivals = [Arrival(0.0, 100, 200), Arrival(30.0, 100, 200, tag="x")]
    both = twins(lambda: Lab([LabBackend("a", H100)]), arrivals, lambda one: one.tag == "x")
    lasted = both.whole.requests[1].truth.seconds
    added = both.charged_joules - H100.idle_watts * lasted
    assert both.saved_joules == pytest.approx(added, rel=0.02)


def test_bursts_come_together():
    found = bursts(count=30, every_seconds=10.0, seconds=30.0, seed=1)
    assert len(found) == 90
    assert [sum(10 * n <= one.at_seconds <= 10 * n + 0.2 for one in found) for n in range(3)] == [
        30
    ] * 3
    assert 20 < sum(one.stream for one in found) < 70
