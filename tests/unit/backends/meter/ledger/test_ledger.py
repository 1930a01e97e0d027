"""How the ledger divides energy, with numbers that can be checked by hand."""

import pytest

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


def test_a_request_alone_has_all_there_is_and_the_rest_is_idle():
    ledger = started()
    begin(ledger, 1, 2 * S, prompt=10, prefill=5)
    progress(ledger, 1, 3 * S, 1)
    end(ledger, 1, 5 * S, 9)
    ticks(ledger, 8 * S, 100)
    (one,) = ledger.settle_requests(FAR)
    assert one == (("g", 1), 300, "exclusive")
    assert (
        ledger.idle_microjoules,
        ledger.attributed_microjoules,
        ledger.unsettled_microjoules,
    ) == (500, 300, 0)


def test_prefill_comes_first_and_the_rest_goes_by_tokens():
    ledger = started()
    begin(ledger, 1, 0, prompt=10, prefill=30)  # prefills throughout, one token in it
    progress(ledger, 1, S, 1)
    begin(ledger, 2, 0)
    end(ledger, 2, S, 4)
    ledger.advance_counter(S, 100)
    end(ledger, 1, S, 1)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 30 + 14, 2: 56}


def test_a_prefill_takes_no_more_than_there_is():
    ledger = started()
    begin(ledger, 1, 0, prompt=10, prefill=300)
    begin(ledger, 2, 0, prompt=10, prefill=100)
    begin(ledger, 3, 0)
    for n, tokens in ((1, 0), (2, 0), (3, 7)):
        end(ledger, n, S, tokens)
    ledger.advance_counter(S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 75, 2: 25, 3: 0}


def test_prefills_alone_take_all_by_their_cost():
    ledger = started()
    begin(ledger, 1, 0, prompt=10, prefill=3)
    begin(ledger, 2, 0, prompt=90, prefill=1)
    for n in (1, 2):
        end(ledger, n, S, 0)
    ledger.advance_counter(S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 75, 2: 25}


def test_prefills_that_nobody_profiled_go_by_prompt_tokens():
    ledger = started()
    begin(ledger, 1, 0, prompt=10)
    begin(ledger, 2, 0, prompt=90)
    for n in (1, 2):
        end(ledger, n, S, 0)
    ledger.advance_counter(S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 10, 2: 90}


def test_what_rounding_leaves_goes_to_the_largest_share_of_equals_to_the_smallest_key():
    ledger = started()
    for n, tokens in ((3, 5), (2, 5), (1, 1)):
        begin(ledger, n, 0)
        end(ledger, n, S, tokens)
    ledger.advance_counter(S, 101)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 9, 2: 47, 3: 45}


def test_a_single_microjoule_goes_to_somebody_with_tokens():
    ledger = started()
    for n, tokens in ((1, 0), (2, 1), (3, 1)):
        begin(ledger, n, 0)
        end(ledger, n, S, tokens)
    ledger.enable_token_polling("b")
    ledger.advance_counter(S, 1)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 0, 2: 1, 3: 0}


def test_tokens_are_spread_over_the_gap_before_them():
    ledger = started()
    begin(ledger, 1, 0)
    begin(ledger, 2, 0)
    progress(ledger, 1, 2 * S, 2)
    end(ledger, 1, 4 * S, 8)
    progress(ledger, 2, 2 * S, 2)
    end(ledger, 2, 4 * S, 4)
    ticks(ledger, 4 * S, 80)
    # 1:1 in the first two seconds, 3:1 in the others
    assert microjoules(ledger.settle_requests(FAR)) == {1: 40 + 40 + 60 + 60, 2: 40 + 40 + 20 + 20}


def test_an_end_may_bring_tokens_but_none_are_taken_back():
    ledger = started()
    for n, last in ((1, 4), (2, 1)):
        begin(ledger, n, 0)
        progress(ledger, n, S, 2)
        end(ledger, n, 2 * S, last)
    ticks(ledger, 2 * S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 50 + 100, 2: 50}


def test_a_lower_count_is_ignored():
    ledger = started()
    for n in (1, 2):
        begin(ledger, n, 0)
        progress(ledger, n, S, 4)
        end(ledger, n, 3 * S, 8)
    progress(ledger, 1, 2 * S, 3)
    ticks(ledger, 3 * S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 150, 2: 150}


def test_a_count_after_the_end_belongs_to_the_end():
    ledger = started()
    begin(ledger, 1, 0)
    end(ledger, 1, S, 1)
    progress(ledger, 1, 2 * S, 3)
    begin(ledger, 2, 0)
    end(ledger, 2, S, 1)
    ticks(ledger, 2 * S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 75, 2: 25}
    assert ledger.idle_microjoules == 100


def test_of_a_cached_prompt_only_the_rest_costs():
    ledger = started()
    begin(ledger, 1, 0, prompt=100, prefill=80, may_change=True)
    begin(ledger, 2, 0)
    end(ledger, 1, S, 0, prompt_tokens=120, cached_tokens=90)
    end(ledger, 2, S, 5)
    ledger.advance_counter(S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 24, 2: 76}  # 80 * (120 - 90) / 100


def test_a_prompt_that_was_cached_whole_costs_nothing():
    ledger = started()
    begin(ledger, 1, 0, prompt=100, prefill=80, may_change=True)
    end(ledger, 1, S, 0, cached_tokens=100)
    ledger.advance_counter(S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 0}
    assert ledger.idle_microjoules == 100


def test_a_prompt_that_may_change_holds_its_prefill_until_the_end():
    ledger = started()
    begin(ledger, 1, 0, prompt=100, prefill=10, may_change=True)
    begin(ledger, 2, 0, prompt=100, prefill=10)
    progress(ledger, 1, S, 1)
    progress(ledger, 2, S, 1)
    progress(ledger, 1, 4 * S, 9)
    end(ledger, 2, 4 * S, 9)
    ticks(ledger, 10 * S, 100)
    assert ledger.settle_requests(10 * S) == []
    assert ledger.unsettled_microjoules == 1000
    end(ledger, 1, 10 * S, 9, cached_tokens=100)
    assert methods(ledger.settle_requests(20 * S)) == {1: "apportioned", 2: "apportioned"}


def test_a_queue_that_is_told_is_no_prefill():
    ledger = started()
    begin(ledger, 1, 0, prompt=10, prefill=20, may_change=True)
    end(ledger, 1, 4 * S, 0, queue_us=3 * S)
    ticks(ledger, 4 * S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 100}
    assert ledger.idle_microjoules == 300


def test_a_queue_told_at_the_end_counts_though_the_first_chunk_was_settled_on_before():
    ledger = started()
    begin(ledger, 1, 0, prompt=10, prefill=20, may_change=True)
    progress(ledger, 1, 4 * S, 0)
    ledger.settle_requests(6 * S)
    end(ledger, 1, 7 * S, 0, queue_us=3 * S)
    ticks(ledger, 7 * S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {1: 100}


def test_a_prefill_begins_when_the_one_before_it_there_has_ended():
    ledger = started()
    begin(ledger, 1, 0, prompt=10, prefill=50)
    begin(ledger, 2, 1, prompt=10, prefill=50)
    begin(ledger, 3, 1, prompt=10, prefill=50, backend="elsewhere")
    end(ledger, 1, 2 * S + 1, 0)
    progress(ledger, 1, 2 * S, 0)
    for n in (2, 3):
        progress(ledger, n, 4 * S, 0)
        end(ledger, n, 4 * S, 0)
    ticks(ledger, 4 * S, 100)
    got = microjoules(ledger.settle_requests(FAR))
    # 1 and 3 share the first two seconds by 50/2 to 50/4, then 2 and 3 share.
    assert [got[n] for n in (1, 2, 3)] == pytest.approx([133, 133, 134], abs=2)


def test_prompts_whose_first_chunks_come_together_were_prefilled_together():
    ledger = started()
    begin(ledger, 1, 0, prompt=10, prefill=50)
    begin(ledger, 2, 0, prompt=10, prefill=50)
    for n, at_us in ((1, 2 * S - 20_000), (2, 2 * S)):
        progress(ledger, n, at_us, 0)
        end(ledger, n, 2 * S, 0)
    ticks(ledger, 2 * S, 100)
    got = microjoules(ledger.settle_requests(FAR))
    assert got[1] == pytest.approx(got[2], abs=3)


def test_who_began_later_and_was_first_leaves_an_earlier_prefill_alone():
    ledger = started()
    begin(ledger, 1, 0, prompt=10, prefill=50)
    begin(ledger, 2, S, prompt=10, prefill=50)
    progress(ledger, 2, 2 * S, 0)
    end(ledger, 2, 2 * S, 0)
    progress(ledger, 1, 4 * S, 0)
    end(ledger, 1, 4 * S, 0)
    ticks(ledger, 4 * S, 100)
    assert microjoules(ledger.settle_requests(FAR)) == {
        1: 300 + 20,
        2: 80,
    }  # 12.5 to 50 in the second
