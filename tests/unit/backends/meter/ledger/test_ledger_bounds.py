"""Whatever comes, a ledger's memory is bounded."""

from backends.meter.ledger.intervals import MAX_INTERVALS
from backends.meter.ledger.ledger import MAX_ORPHANS, EnergyLedger
from backends.meter.ledger.request import MAX_FRESH, MAX_POINTS

S = 1_000_000
FAR = 100_000 * S


def started(**options) -> EnergyLedger:
    ledger = EnergyLedger("gpu", **options)
    ledger.start_counter(0)
    return ledger


def begin(ledger, n, at_us):
    ledger.begin(("g", n), at_us, "b", 0, 0, False)


def progress(ledger, n, at_us, tokens):
    ledger.progress(("g", n), at_us, tokens)


def end(ledger, n, at_us, tokens):
    ledger.end(("g", n), at_us, tokens)


def microjoules(settled) -> dict[int, int]:
    return {one.key[1]: one.microjoules for one in settled}


def test_events_whose_beginning_never_comes_are_forgotten():
    ledger = started()
    for n in range(MAX_ORPHANS + 5):
        progress(ledger, n, S, 1)
    assert len(ledger._orphans) == MAX_ORPHANS
    assert ledger.dropped_events == 5
    ledger.settle_requests(12 * S)
    assert len(ledger._orphans) == 0
    assert ledger.dropped_events == MAX_ORPHANS + 5
    assert ledger.settle_requests(FAR) == []


def test_requests_beyond_the_bound_are_refused_and_their_energy_goes_to_the_others():
    ledger = started(max_requests=2)
    for n in (1, 2, 3):
        begin(ledger, n, 0)
        end(ledger, n, S, 1)
    assert (ledger.open_requests, ledger.dropped_events) == (2, 1)
    ledger.advance_counter(S, 100)
    assert microjoules(ledger.settle_requests(2 * S)) == {1: 50, 2: 50}
    for n in range(10, 20):  # what is remembered of old ones is bounded too
        begin(ledger, n, S)
        end(ledger, n, S, 1)
        ledger.settle_requests(3 * S)
    assert len(ledger._settled_keys) <= 2
    assert len(ledger._settled_order) <= 2


def test_points_of_one_request_are_thinned():
    ledger = started()
    begin(ledger, 1, 0)
    progress(ledger, 2, 1, 1)
    for n in range(1, 5_000):
        progress(ledger, 1, n * 1000, n)
        progress(ledger, 2, n * 1000, n)
        if n % 7 == 0:
            ledger.settle_requests(0)
        assert len(ledger._requests["g", 1].times) <= MAX_POINTS + 1
        for request in (ledger._requests["g", 1], ledger._orphans["g", 2]):
            assert len(request.noted_counts) <= MAX_FRESH
    end(ledger, 1, 5 * S, 5_000)
    ledger.advance_counter(5 * S, 500)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 500}


def test_points_behind_the_horizon_are_forgotten():
    ledger = started()
    begin(ledger, 1, 0)
    for n in range(1, 400):
        progress(ledger, 1, n * S // 4, n)
        ledger.advance_counter(n * S // 4, 100)
        ledger.settle_requests(n * S // 4)
    assert len(ledger._requests["g", 1].times) < 30
    assert len(ledger._intervals) < 10


def test_intervals_beyond_the_bound_are_merged_and_no_energy_is_lost():
    ledger = started(cap_us=FAR)
    begin(ledger, 1, 0)
    for n in range(1, 3 * MAX_INTERVALS + 1):
        ledger.advance_counter(n * 10_000, 7)
    assert len(ledger._intervals) <= MAX_INTERVALS
    assert ledger.unsettled_microjoules == ledger.advanced_microjoules == MAX_INTERVALS * 3 * 7
    end(ledger, 1, MAX_INTERVALS * 30_000, 1)
    assert microjoules(ledger.settle_requests(FAR)) == {1: MAX_INTERVALS * 3 * 7}


def test_first_chunks_behind_the_horizon_are_forgotten():
    ledger = started()
    for second in range(1, 50):
        begin(ledger, second, (second - 1) * S)
        progress(ledger, second, second * S - 1, 1)
        end(ledger, second, second * S, 2)
        ledger.advance_counter(second * S, 100)
        ledger.settle_requests(second * S)
        assert len(ledger._prefill_order._firsts.get("b", [])) <= 3
    ledger.advance_counter(50 * S, 0)
    ledger.settle_requests(60 * S)
    ledger.settle_requests(61 * S)
    assert not ledger._prefill_order._firsts
