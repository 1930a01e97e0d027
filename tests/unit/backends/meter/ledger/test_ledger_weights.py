"""Generated tokens by what profiling says they cost, and what cannot be weighed or was not seen."""

import pytest

from backends.meter.ledger.decode_weights import DecodeCost
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


def weighed(ledger, n, cost, *, prompt=0, backend="b", tokens=10, at_us=0):
    """A request that decodes for a second."""
    ledger.begin_request(("g", n), at_us, backend, prompt, 0, False, cost)
    progress(ledger, n, at_us, 0)
    end(ledger, n, at_us + S, tokens)


def test_models_on_one_gpu_are_weighed_by_their_joules_per_token():
    ledger = started()
    weighed(ledger, 1, DecodeCost(500, 0, 0), backend="large")
    weighed(ledger, 2, DecodeCost(100, 0, 0), backend="small")
    ledger.advance_counter(S, 600)
    settled = ledger.settle_requests(FAR)
    assert microjoules(settled) == {1: 500, 2: 100}
    assert methods(settled) == {1: "apportioned", 2: "apportioned"}


def test_a_steps_fixed_part_is_shared_by_those_of_its_own_backend():
    ledger = started()
    for n in (1, 2, 3, 4):
        weighed(ledger, n, DecodeCost(100, 0, 1600), backend="large")
    weighed(ledger, 5, DecodeCost(100, 0, 900), backend="small")
    ledger.advance_counter(S, 3000)
    # 100 + 1600/4 each of four, 100 + 900 of the other
    assert microjoules(ledger.settle_requests(FAR)) == {1: 500, 2: 500, 3: 500, 4: 500, 5: 1000}


def test_who_is_there_for_a_part_shares_the_steps_of_that_part_alone():
    """Twenty steps: ten of one request, then ten that two share."""
    ledger = started()
    ledger.begin_request(("g", 1), 0, "b", 0, 0, False, DecodeCost(0, 0, 1000))
    progress(ledger, 1, 0, 0)
    ledger.begin_request(("g", 2), S // 2, "b", 0, 0, False, DecodeCost(0, 0, 1000))
    progress(ledger, 2, S // 2, 0)
    end(ledger, 1, S, 20)
    end(ledger, 2, S, 10)
    ledger.advance_counter(S, 20_000)
    assert microjoules(ledger.settle_requests(FAR)) == pytest.approx({1: 15_000, 2: 5_000}, abs=1)


def test_a_prompt_shares_the_steps_that_it_is_computed_in():
    """Of ten steps one request has five to itself, and five beside the other's prompt."""
    ledger = started()
    ledger.begin_request(("g", 1), 0, "b", 0, 0, False, DecodeCost(0, 0, 1000))
    progress(ledger, 1, 0, 0)
    ledger.begin_request(("g", 2), S // 2, "b", 100, 0, False, DecodeCost(0, 0, 1000))
    progress(ledger, 2, S, 5)  # its first tokens, and its end
    end(ledger, 1, S, 10)
    end(ledger, 2, S, 5)
    ledger.advance_counter(S, 10_000)
    assert microjoules(ledger.settle_requests(FAR)) == pytest.approx({1: 7_500, 2: 2_500}, abs=1)


def test_a_long_context_costs_more_than_a_short_one():
    ledger = started()
    weighed(ledger, 1, DecodeCost(100, 1, 0), prompt=290)
    weighed(ledger, 2, DecodeCost(100, 1, 0), prompt=90)
    ledger.advance_counter(S, 600)
    # its prompt and its own ten tokens: 400 against 200
    assert microjoules(ledger.settle_requests(FAR)) == {1: 400, 2: 200}


def test_equal_costs_without_context_are_equal_tokens():
    ledger = started()
    weighed(ledger, 1, DecodeCost(100, 0, 900), tokens=30)
    weighed(ledger, 2, None, tokens=10)
    ledger.advance_counter(S, 400)
    settled = ledger.settle_requests(FAR)
    assert microjoules(settled) == {1: 300, 2: 100}
    assert methods(settled) == {1: "apportioned", 2: "apportioned"}


@pytest.mark.parametrize("unable", [None, DecodeCost(100, 0, -1)])
def test_models_that_no_profile_can_weigh_are_coarse(unable):
    ledger = started()
    weighed(ledger, 1, DecodeCost(100, 0, 0), backend="large")
    weighed(ledger, 2, unable, backend="small")
    weighed(ledger, 3, unable, backend="small", at_us=2 * S)
    ticks(ledger, 3 * S, 600)
    settled = ledger.settle_requests(FAR)
    assert microjoules(settled) == {1: 300, 2: 300, 3: 600}
    assert methods(settled) == {1: "coarse", 2: "coarse", 3: "exclusive"}


def test_an_answer_that_nobody_saw_is_estimated_and_its_tokens_are_nobody_elses():
    ledger = EnergyLedger("gpu")
    ledger.start_counter(0)
    ledger.advance_counter(S, 100)
    for second, generated in enumerate((0, 100, 100)):
        ledger.record_token_counts("b", second * S, 0, generated)
    begin(ledger, 1, 0)
    ledger.end_request(("g", 1), S, 95, unseen=True)
    assert ledger.settle_requests(4 * S)[0].method == "estimated"
    assert ledger.other_microjoules == 0


def test_a_prompt_found_in_a_cache_that_nobody_told_of_is_coarse():
    ledger = started()
    ticks(ledger, 3 * S, 100)
    for second, prompt in enumerate((0, 100, 200, 200)):
        ledger.record_token_counts("b", second * S, prompt, 0)
    for n, cached in ((1, None), (2, 900)):
        begin(ledger, n, 0, prompt=1000, prefill=10)
        for tokens in (0, 1):
            progress(ledger, n, S // 2 + (n - 1) * S + tokens, tokens)
        end(ledger, n, 2 * S, 1, cached_tokens=cached)
    assert methods(ledger.settle_requests(FAR)) == {1: "coarse", 2: "apportioned"}


def test_who_is_there_when_a_full_cache_throws_a_request_out_is_coarse():
    ledger = started()
    ticks(ledger, 4 * S, 100)
    for second, preemptions in enumerate((5, 5, 6, 6, 6)):
        ledger.record_token_counts("b", second * S, 0, 10 * second, preemptions)
    begin(ledger, 1, 0)
    end(ledger, 1, S, 10)
    begin(ledger, 2, S)
    end(ledger, 2, 2 * S, 10)
    begin(ledger, 3, 2 * S)
    end(ledger, 3, 4 * S, 20)
    assert methods(ledger.settle_requests(FAR)) == {1: "exclusive", 2: "coarse", 3: "exclusive"}


def test_an_answer_that_came_at_once_explains_what_is_counted_meanwhile():
    """Its tokens are known, when they came is not: that is nobody else's."""
    ledger = started()
    ticks(ledger, 4 * S, 100)
    for second, generated in enumerate((0, 90, 100, 100, 100)):
        ledger.record_token_counts("b", second * S, 0, generated)
    begin(ledger, 1, 0)
    end(ledger, 1, 2 * S, 100)  # spread evenly it had 50 in the first second, not 90
    ledger.settle_requests(FAR)
    assert ledger.other_microjoules == 0


def test_a_window_is_weighed_though_a_request_that_began_in_it_stays_open_for_long():
    """What is counted before and after is netted only if no window is left out."""
    ledger = started()
    ticks(ledger, 12 * S, 100, step_us=S // 10)
    begin(ledger, 1, S // 2 + 1)
    for second in range(9):
        ledger.record_token_counts("b", second * S, 0, 10 * second)
        ledger.settle_requests(second * S)
    end(ledger, 1, 8 * S, 80)
    ledger.record_token_counts("b", 9 * S, 0, 80)
    ledger.settle_requests(12 * S)
    assert ledger.other_microjoules == 0
