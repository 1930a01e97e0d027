"""When the ledger settles, and what it then says of a request."""

import pytest

from backends.meter.ledger.ledger import EnergyLedger
from tests.unit.backends.meter.ledger.ledgers import (
    FAR,
    S,
    begin,
    end,
    methods,
    microjoules,
    progress,
    started,
    ticks,
)


def test_nothing_settles_before_a_first_chunk():
    ledger = started()
    begin(ledger, 1, 2 * S)
    ticks(ledger, 9 * S, 100)
    assert ledger.settle_requests(9 * S) == []
    assert ledger.settled_us == 2 * S
    progress(ledger, 1, 6 * S, 1)
    ledger.settle_requests(7 * S)
    assert ledger.settled_us == 6 * S


def test_a_silent_stream_holds_intervals_for_so_long():
    ledger = started(stall_us=2 * S)
    begin(ledger, 1, 0)
    progress(ledger, 1, S, 1)
    ticks(ledger, 9 * S, 100)
    ledger.settle_requests(5 * S - 1)
    assert ledger.settled_us == 2 * S
    ledger.settle_requests(5 * S)
    assert ledger.settled_us == 3 * S
    end(ledger, 1, 5 * S, 1)  # no token more: nothing was missed
    ledger.settle_requests(9 * S)
    assert ledger.idle_microjoules == 700


def test_tokens_that_come_after_their_interval_was_settled_are_missed():
    ledger = started(stall_us=2 * S)
    begin(ledger, 1, 0)
    progress(ledger, 1, S, 1)
    ticks(ledger, 9 * S, 100)
    ledger.settle_requests(5 * S)
    end(ledger, 1, 5 * S, 9)
    assert ledger.settle_requests(9 * S) == [(("g", 1), 300, "estimated")]
    assert ledger.idle_microjoules == 200 + 300


def test_a_beginning_may_be_on_its_way_for_a_second():
    ledger = started()
    ticks(ledger, 9 * S, 100)
    ledger.settle_requests(9 * S)
    assert ledger.settled_us == 8 * S
    begin(ledger, 1, 8 * S)
    end(ledger, 1, 9 * S, 1)
    assert ledger.settle_requests(10 * S) == [(("g", 1), 100, "exclusive")]


def test_at_the_cap_it_settles_with_what_is_known():
    ledger = started(cap_us=60 * S)
    begin(ledger, 1, 0, prompt=10, prefill=10)
    ticks(ledger, 70 * S, 100)
    for at_us in range(0, 60 * S, S):
        assert ledger.settle_requests(at_us) == []
        assert ledger.settled_us <= 0
    ledger.settle_requests(62 * S)
    assert ledger.settled_us == 2 * S
    assert ledger.attributed_microjoules == 200
    end(ledger, 1, 65 * S, 100)
    assert methods(ledger.settle_requests(70 * S)) == {1: "estimated"}


def test_who_is_silent_for_two_caps_holds_nothing_up_and_after_ten_has_ended():
    ledger = started(cap_us=60 * S)
    begin(ledger, 1, S)
    ticks(ledger, 700 * S, 100)
    ledger.settle_requests(121 * S)
    assert ledger.settled_us == 61 * S
    ledger.settle_requests(122 * S)
    assert ledger.settled_us == 121 * S
    ledger.settle_requests(600 * S)
    assert ledger.open_requests == 1
    assert methods(ledger.settle_requests(602 * S)) == {1: "estimated"}
    assert ledger.open_requests == 0


def test_what_was_not_seen_from_the_start_is_estimated():
    ledger = EnergyLedger("gpu")
    begin(ledger, 1, -1)
    begin(ledger, 2, 0)
    ledger.start_counter(0)
    end(ledger, 1, S, 1)
    end(ledger, 2, S, 1)
    ticks(ledger, S, 100)
    settled = ledger.settle_requests(FAR)
    assert methods(settled) == {1: "estimated", 2: "apportioned"}
    assert microjoules(settled)[2] == pytest.approx(50, abs=1)


def test_without_any_counter_requests_settle_as_estimated():
    ledger = EnergyLedger("gpu")
    begin(ledger, 1, 0)
    end(ledger, 1, S, 1)
    assert ledger.settle_requests(1_500_000) == []
    assert ledger.settle_requests(2 * S) == [(("g", 1), 0, "estimated")]


def test_requests_over_a_hole_are_estimated_and_those_after_it_are_not():
    ledger = started()
    begin(ledger, 1, 0)
    end(ledger, 1, S, 1)
    begin(ledger, 2, 0)
    end(ledger, 2, 4 * S, 4)
    ledger.advance_counter(S, 100)
    ledger.advance_counter(2 * S, 100)
    ledger.lose_counter(2 * S)
    ledger.start_counter(4 * S)
    begin(ledger, 3, 4 * S)
    end(ledger, 3, 5 * S, 1)
    ledger.advance_counter(5 * S, 100)
    settled = ledger.settle_requests(FAR)
    assert microjoules(settled) == {1: 50, 2: 150, 3: 100}
    assert methods(settled) == {1: "apportioned", 2: "estimated", 3: "exclusive"}


def test_energy_told_without_a_start_is_kept_and_its_time_is_a_hole():
    ledger = started()
    ledger.lose_counter(S)
    begin(ledger, 1, 0)
    end(ledger, 1, 3 * S, 1)
    ledger.advance_counter(3 * S, 100)
    assert ledger.settle_requests(FAR) == [(("g", 1), 100, "estimated")]


def test_a_counter_that_nobody_reads_any_more_is_lost():
    ledger = started(cap_us=60 * S)
    ledger.advance_counter(S, 100)
    begin(ledger, 1, 2 * S)
    end(ledger, 1, 3 * S, 1)
    assert ledger.settle_requests(60 * S) == []
    assert ledger.settle_requests(62 * S) == [(("g", 1), 0, "estimated")]


def test_a_counter_that_falls_is_an_error_and_one_read_twice_at_once_is_not():
    ledger = started()
    with pytest.raises(ValueError, match="-1 microjoules"):
        ledger.advance_counter(S, -1)
    ledger.advance_counter(S, 5)
    ledger.advance_counter(S, 6)
    ledger.settle_requests(FAR)
    assert (ledger.idle_microjoules, ledger.unsettled_microjoules) == (11, 0)


def test_all_that_a_vanished_gateway_had_open_ends():
    ledger = started()
    begin(ledger, 1, 0)
    progress(ledger, 1, S, 1)
    begin(ledger, 2, 0)
    progress(ledger, 2, 3 * S, 3)  # heard of after the time at which it is taken to have gone
    begin(ledger, 3, 0, gateway="h")
    ticks(ledger, 5 * S, 60)
    ledger.end_gateway_requests("g", 2 * S)
    ledger.end_request(("h", 3), 5 * S, 5)
    settled = ledger.settle_requests(FAR)
    assert methods(settled) == {1: "estimated", 2: "estimated", 3: "apportioned"}
    assert microjoules(settled) == {1: 20, 2: 20 + 30 + 30, 3: 20 + 30 + 30 + 60 + 60}


def test_long_intervals_and_slow_sources_are_coarse():
    ledger = started(coarse_above_us=S)
    begin(ledger, 1, 0)
    end(ledger, 1, S, 1)
    begin(ledger, 2, S)
    end(ledger, 2, 2 * S, 1)
    ledger.advance_counter(S, 100)
    ledger.advance_counter(2 * S + 1, 100)
    assert methods(ledger.settle_requests(FAR)) == {1: "exclusive", 2: "coarse"}
    slow = started(coarse=True)
    begin(slow, 1, 0)
    end(slow, 1, S, 1)
    slow.advance_counter(S, 100)
    assert methods(slow.settle_requests(FAR)) == {1: "coarse"}


def test_exclusive_means_that_nobody_else_had_tokens():
    ledger = started()
    begin(ledger, 1, 0)  # waits while 2 decodes
    end(ledger, 1, 2 * S, 0)
    begin(ledger, 2, 0)
    end(ledger, 2, S, 4)
    begin(ledger, 3, 3 * S)  # prefills while 4 waits
    end(ledger, 3, 4 * S, 1)
    begin(ledger, 4, 3 * S)
    end(ledger, 4, 4 * S, 0)
    ticks(ledger, 5 * S, 100)
    assert methods(ledger.settle_requests(FAR)) == {
        1: "apportioned",
        2: "exclusive",
        3: "exclusive",
        4: "apportioned",
    }


def test_events_about_a_settled_request_change_nothing():
    ledger = started()
    begin(ledger, 1, 0)
    end(ledger, 1, S, 1)
    ticks(ledger, 4 * S, 100)
    assert len(ledger.settle_requests(4 * S)) == 1
    begin(ledger, 1, 0)
    progress(ledger, 1, S, 1)
    end(ledger, 1, 4 * S, 9)
    ledger.settle_requests(FAR)
    assert ledger.late_events == 3
    assert ledger.open_requests == 0
    assert (ledger.attributed_microjoules, ledger.idle_microjoules) == (100, 300)


def test_a_whole_request_that_comes_too_late_settles_at_once_with_nothing():
    ledger = started()
    ticks(ledger, 9 * S, 100)
    ledger.settle_requests(9 * S)
    begin(ledger, 1, S)
    end(ledger, 1, 2 * S, 5)
    assert ledger.settle_requests(9 * S) == [(("g", 1), 0, "estimated")]


def test_events_wait_for_their_beginning():
    ledger = started()
    end(ledger, 1, 2 * S, 2)
    progress(ledger, 1, S, 1)
    ledger.settle_requests(2 * S)
    begin(ledger, 1, 0)
    ticks(ledger, 2 * S, 100)
    assert ledger.settle_requests(3 * S) == [(("g", 1), 200, "exclusive")]
    assert ledger.dropped_events == 0


def test_a_count_for_the_settled_past_is_not_spread_over_what_is_left():
    ledger = started()
    for n in (1, 2):
        begin(ledger, n, 0)
        progress(ledger, n, S, 1)
        progress(ledger, n, 3 * S, 3)
    ticks(ledger, 4 * S, 100)
    ledger.settle_requests(4 * S)
    assert ledger.settled_us == 3 * S
    progress(ledger, 1, S // 2, 50)
    end(ledger, 1, 4 * S, 50)
    end(ledger, 2, 4 * S, 4)
    settled = ledger.settle_requests(FAR)
    assert microjoules(settled) == {1: 150, 2: 250}
    assert methods(settled) == {1: "estimated", 2: "apportioned"}


def test_a_count_that_comes_late_mends_what_is_not_settled():
    ledger = started()
    for n in (1, 2):
        begin(ledger, n, 0)
        progress(ledger, n, S, 1)
    progress(ledger, 1, 9 * S, 9)
    progress(ledger, 2, 3 * S, 3)
    ticks(ledger, 9 * S, 100)
    ledger.settle_requests(4 * S)
    assert ledger.settled_us == 3 * S
    progress(ledger, 1, 4 * S, 9)  # all it had by the ninth second it had by the fourth
    end(ledger, 1, 9 * S, 9)
    end(ledger, 2, 9 * S, 9)
    assert microjoules(ledger.settle_requests(FAR))[2] == 150 + 27 + 500


def test_a_first_chunk_at_the_very_beginning_counts():
    ledger = started()
    begin(ledger, 1, 0, prompt=10, prefill=10)
    progress(ledger, 1, 0, 5)
    end(ledger, 1, S, 5)
    ledger.advance_counter(S, 100)
    assert ledger.settle_requests(FAR) == [(("g", 1), 100, "exclusive")]
