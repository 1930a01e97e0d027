"""Tokens that a backend counted and no gateway reported."""

from backends.meter.ledger.ledger import EnergyLedger
from backends.meter.ledger.unreported import MAX_SHORTFALL_TOKENS

S = 1_000_000
FAR = 100_000 * S


def polled(seconds, *, counted, microjoules=100) -> EnergyLedger:
    """A ledger whose counter moves each second, and one poll a second of (prompt, generated)."""
    ledger = EnergyLedger("gpu")
    ledger.start_counter(0)
    for second in range(1, seconds + 1):
        ledger.advance_counter(second * S, microjoules)
    for second, totals in enumerate(counted):
        ledger.record_token_counts("b", second * S, *totals)
    return ledger


def test_what_nobody_reported_is_others():
    ledger = polled(3, counted=[(0, 0), (0, 0), (0, 30), (0, 30)])
    ledger.begin_request(("g", 1), S, "b", 0, 0, False)
    ledger.end_request(("g", 1), 2 * S, 10)
    (one,) = ledger.settle_requests(4 * S)
    assert (one.microjoules, one.method) == (33, "apportioned")
    assert ledger.other_microjoules == 67
    assert ledger.other_by_backend == {"b": 67}
    assert (ledger.idle_microjoules, ledger.unsettled_microjoules) == (200, 0)


def test_what_gateways_reported_is_not():
    ledger = polled(3, counted=[(0, 0), (5, 0), (5, 10), (5, 10)])
    ledger.begin_request(("g", 1), 0, "b", 5, 1, False)
    ledger.record_progress(("g", 1), S, 0)
    ledger.end_request(("g", 1), 2 * S, 10)
    assert ledger.settle_requests(4 * S) == [(("g", 1), 200, "exclusive")]
    assert ledger.other_microjoules == 0


def test_a_shortfall_is_carried():
    ledger = polled(4, counted=[(0, 0), (0, 0), (0, 10), (0, 20), (0, 40)])
    ledger.begin_request(("g", 1), 0, "b", 0, 0, False)
    ledger.record_progress(("g", 1), S, 10)
    ledger.end_request(("g", 1), 2 * S, 20)
    ledger.settle_requests(5 * S)
    # Short by 10 after the first second; made up for in the third, so only the fourth has others.
    assert (ledger.other_microjoules, ledger.idle_microjoules) == (100, 100)


def test_a_shortfall_has_a_bound():
    far_more = 10 * int(MAX_SHORTFALL_TOKENS)
    ledger = polled(3, counted=[(0, 0), (0, 0), (0, int(MAX_SHORTFALL_TOKENS) + 1)])
    ledger.begin_request(("g", 1), 0, "b", 0, 0, False)
    ledger.end_request(("g", 1), S, far_more)
    ledger.settle_requests(4 * S)
    assert ledger.other_microjoules == 100


def test_an_unreported_prompt_costs_what_prompts_cost_there():
    ledger = polled(2, counted=[(0, 0), (20, 0), (30, 0)])
    ledger.begin_request(("g", 1), 0, "b", 20, 40, False)
    ledger.record_progress(("g", 1), S, 0)
    ledger.end_request(("g", 1), 2 * S, 7)
    ledger.settle_requests(3 * S)
    assert ledger.other_microjoules == 20  # 10 tokens at 2 microjoules; the decode has the rest


def test_an_unreported_prompt_of_unknown_cost_has_what_is_left_by_decode():
    ledger = polled(1, counted=[(0, 0), (30, 0)])
    ledger.settle_requests(3 * S)
    assert (ledger.other_microjoules, ledger.idle_microjoules) == (100, 0)


def test_a_backend_that_starts_over_says_nothing_for_once():
    ledger = polled(3, counted=[(0, 500), (0, 510), (0, 4), (0, 8)])
    ledger.settle_requests(5 * S)
    assert (ledger.other_microjoules, ledger.idle_microjoules) == (200, 100)


def test_intervals_wait_for_the_poll_that_covers_them():
    ledger = polled(5, counted=[(0, 0), (0, 0), (0, 0)])
    ledger.settle_requests(4 * S)
    assert ledger.settled_us == 2 * S
    ledger.record_token_counts("b", 3 * S, 0, 50)
    ledger.settle_requests(4 * S)
    assert ledger.settled_us == 3 * S
    assert ledger.other_microjoules == 100


def test_intervals_do_not_wait_for_polls_that_have_stopped():
    ledger = polled(20, counted=[(0, 0), (0, 0)])
    ledger.settle_requests(4 * S)
    assert ledger.settled_us == S
    ledger.settle_requests(4 * S + 1)
    assert ledger.settled_us == 3 * S
    ledger.settle_requests(10 * S)
    assert ledger.settled_us == 9 * S


def test_the_first_poll_is_waited_for_too():
    ledger = polled(20, counted=[])
    ledger.enable_token_polling("b")
    ledger.settle_requests(3 * S)
    assert ledger.settled_us <= 0
    ledger.settle_requests(5 * S)
    assert ledger.settled_us == 2 * S
    ledger.settle_requests(7 * S)
    assert ledger.settled_us == 6 * S


def test_windows_wait_for_the_events_of_their_time():
    ledger = polled(3, counted=[(0, 0), (0, 0), (0, 10), (0, 10)])
    ledger.begin_request(("g", 1), S, "b", 0, 0, False)  # its tokens are still to be heard of
    ledger.settle_requests(4 * S)
    assert ledger.other_microjoules == 0
    ledger.end_request(("g", 1), 2 * S, 10)
    assert ledger.settle_requests(5 * S) == [(("g", 1), 100, "exclusive")]
    assert ledger.other_microjoules == 0


def test_another_backend_on_the_same_devices_keeps_its_own_books():
    ledger = polled(2, counted=[(0, 0), (0, 10), (0, 10)])
    ledger.record_token_counts("c", 0, 0, 0)
    ledger.record_token_counts("c", S, 0, 30)
    ledger.record_token_counts("c", 2 * S, 0, 30)
    ledger.begin_request(("g", 1), 0, "c", 0, 0, False)
    ledger.end_request(("g", 1), S, 10)
    (one,) = ledger.settle_requests(4 * S)
    assert one.microjoules == 25
    assert ledger.other_by_backend == {"b": 25, "c": 50}


def test_windows_are_bounded():
    ledger = polled(1, counted=[])
    ledger.begin_request(("g", 1), 0, "b", 0, 0, False)
    for second in range(3_000):
        ledger.record_token_counts("b", second * S, second, second)
    unreported = ledger._unattributed_tokens["b"]
    assert len(unreported._poll_windows) == 600
    ledger.settle_requests(FAR)
    assert len(unreported._other_windows) <= 600
    assert ledger.unsettled_microjoules == 0


def test_noise_is_not_others():
    # A lone stream: each poll is a token ahead of what was reported, or behind.
    ledger = polled(5, counted=[(0, 0), (8, 1), (8, 11), (8, 22), (8, 31), (8, 41)])
    ledger.begin_request(("g", 1), 0, "b", 7, 1, False)
    ledger.record_progress(("g", 1), S, 0)
    for second in range(2, 6):
        ledger.record_progress(("g", 1), second * S, 10 * (second - 1))
    ledger.end_request(("g", 1), 5 * S, 40)
    assert ledger.settle_requests(7 * S) == [(("g", 1), 500, "exclusive")]
    assert ledger.other_microjoules == 0


def test_little_by_little_is_others_all_the_same():
    ledger = polled(20, counted=[(0, second) for second in range(21)])
    ledger.begin_request(("g", 1), 0, "b", 0, 0, False)
    ledger.record_progress(("g", 1), S, 0)
    ledger.end_request(("g", 1), 20 * S, 0)
    ledger.settle_requests(23 * S)
    # A token a second that nobody reports is beyond the noise every third second.
    assert ledger.other_microjoules == 6 * 100


def test_prompts_counted_short_until_their_ends_are_not_others_for_long():
    # Gateways count four fifths of what vLLM does, and learn of it at each stream's end.
    counted = [(100 * second, 10 * second) for second in range(31)]
    ledger = polled(30, counted=[(0, 0), *counted[:-1]])
    for number in range(29):
        ledger.begin_request(("g", number), number * S, "b", 80, 1, False)
        ledger.record_progress(("g", number), (number + 1) * S + S // 2, 1)
        ledger.end_request(("g", number), (number + 2) * S, 10, 100)
    ledger.settle_requests(33 * S)
    assert ledger.other_microjoules <= 100
