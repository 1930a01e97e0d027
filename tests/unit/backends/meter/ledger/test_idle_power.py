"""Who is there for a part of an interval does not pay for the rest of it."""

import pytest

from backends.meter.ledger.idle_power import measure_absence
from backends.meter.ledger.intervals import EnergyInterval
from backends.meter.ledger.ledger import EnergyLedger
from tests.unit.backends.meter.ledger.ledgers import FAR, microjoules

PERIOD_US = 100_000
IDLE = 75  # watts


def make_ledger(idle_intervals):
    ledger = EnergyLedger("gpu")
    ledger.start_counter(0)
    for number in range(idle_intervals):
        ledger.advance_counter((number + 1) * PERIOD_US, IDLE * PERIOD_US)
    return ledger, idle_intervals * PERIOD_US


def ask(ledger, name, began_us, seconds_us):
    key = ("g", name)
    ledger.begin_request(key, began_us, "b", 10, 0, False)
    ledger.end_request(key, began_us + seconds_us, 1)


def test_a_request_shorter_than_the_counters_period_pays_for_its_own_time():
    ledger, at_us = make_ledger(5)
    ask(ledger, 1, at_us + 30_000, 20_000)
    spent = 8_000_000 + IDLE * 80_000
    ledger.advance_counter(at_us + PERIOD_US, spent)
    (settled,) = ledger.settle_requests(FAR)
    assert settled.microjoules == 8_000_000
    assert settled.method == "exclusive"
    assert ledger.idle_microjoules == 5 * IDLE * PERIOD_US + IDLE * 80_000


@pytest.mark.parametrize("idle_intervals", [0, 2])
def test_where_the_idle_power_is_not_known_all_of_the_interval_is_its(idle_intervals):
    ledger, at_us = make_ledger(idle_intervals)
    ask(ledger, 1, at_us + 30_000, 20_000)
    ledger.advance_counter(at_us + PERIOD_US, 14_000_000)
    (settled,) = ledger.settle_requests(FAR)
    assert settled.microjoules == 14_000_000


def test_the_least_power_seen_counts_and_never_more_than_there_is():
    ledger, at_us = make_ledger(3)
    # Somebody whom no gateway told of: dear, and nobody's.
    ledger.advance_counter(at_us + PERIOD_US, 600 * PERIOD_US)
    ask(ledger, 1, at_us + PERIOD_US + 10, 1_000)
    ledger.advance_counter(at_us + 2 * PERIOD_US, 1_000)
    ask(ledger, 2, at_us + 2 * PERIOD_US + 50_000, 1_000_000)
    ledger.advance_counter(at_us + 3 * PERIOD_US, 9_000_000)
    ledger.advance_counter(at_us + 20 * PERIOD_US, 0)
    settled = microjoules(ledger.settle_requests(FAR))
    assert settled == {1: 0, 2: 9_000_000 - IDLE * 50_000}


def test_tokens_that_nobody_reported_may_have_been_computed_then():
    ledger, at_us = make_ledger(5)
    ledger.enable_token_polling("b")
    ledger.record_token_counts("b", at_us, 0, 0, 0)
    ask(ledger, 1, at_us + 30_000, 20_000)
    for number in range(20):
        ledger.advance_counter(at_us + (number + 1) * PERIOD_US, 14_000_000)
    ledger.record_token_counts("b", at_us + 2_000_000, 10, 5_001, 0)
    ledger.settle_requests(FAR)
    assert ledger.other_microjoules > 200_000_000
    assert ledger.idle_microjoules == 5 * IDLE * PERIOD_US


class There:
    def __init__(self, begin_us, end_us):
        self.begin_us, self.end_us = begin_us, end_us


@pytest.mark.parametrize(
    ("times", "absent"),
    [
        ([(0, 100)], 0),
        ([(0, 60), (50, 500)], 0),
        ([(10, 20)], 90),
        ([(10, 20), (15, 30), (80, 400)], 60),
        ([(-50, 10), (90, 91)], 89),
    ],
)
def test_the_time_in_which_nobody_was_there(times, absent):
    span = EnergyInterval(0, 100, 1, hole=False)
    assert measure_absence(span, [There(*one) for one in times]) == absent
