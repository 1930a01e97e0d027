"""Each transition of a request in the ledger, as the diagram in `request.py` has them."""

import pytest

from backends.meter.ledger.request import NEVER_US
from tests.unit.backends.meter.ledger.ledgers import (
    S,
    begin,
    end,
    methods,
    progress,
    started,
    ticks,
)

KEY = ("g", 1)


def state(ledger):
    """The state of request 1."""
    if KEY in ledger._orphans:
        return "orphan"
    if KEY in ledger._settled_keys:
        return "settled"
    request = ledger._requests.get(KEY)
    if request is None:
        return "unknown"
    request.apply_events(ledger.settled_us)
    if request.end_us != NEVER_US:
        return "ended"
    return "prefill" if request.first_us == NEVER_US else "decode"


@pytest.fixture
def ledger():
    return started()


def test_unknown_to_orphan_when_progress_comes_before_its_begin(ledger):
    progress(ledger, 1, S, 1)
    assert state(ledger) == "orphan"


def test_orphan_to_open_when_its_begin_comes_with_what_it_knew(ledger):
    end(ledger, 1, 3 * S, 5)
    begin(ledger, 1, S)
    assert KEY not in ledger._orphans
    assert state(ledger) == "ended"  # what the orphan knew was not lost


def test_orphan_to_dropped_when_its_begin_never_comes(ledger):
    progress(ledger, 1, S, 1)
    ledger.settle_requests(11 * S)
    assert state(ledger) == "orphan"
    ledger.settle_requests(11 * S + 1)
    assert (state(ledger), ledger.dropped_events) == ("unknown", 1)


def test_unknown_to_prefill_at_its_begin(ledger):
    begin(ledger, 1, S)
    assert state(ledger) == "prefill"


def test_prefill_to_decode_at_the_first_progress(ledger):
    begin(ledger, 1, S)
    progress(ledger, 1, 2 * S, 1)
    assert state(ledger) == "decode"


def test_prefill_to_ended_when_it_ends_without_a_token(ledger):
    begin(ledger, 1, S)
    end(ledger, 1, 2 * S, 0)
    assert state(ledger) == "ended"


def test_decode_to_ended_at_its_end(ledger):
    begin(ledger, 1, S)
    progress(ledger, 1, 2 * S, 1)
    end(ledger, 1, 3 * S, 5)
    assert state(ledger) == "ended"
    assert not ledger._requests[KEY].incomplete


@pytest.mark.parametrize("first", [(), (2 * S,)])
def test_open_to_ended_incomplete_when_its_gateway_is_gone(ledger, first):
    begin(ledger, 1, S)
    for at_us in first:
        progress(ledger, 1, at_us, 1)
    ledger.end_gateway_requests("g", 4 * S)
    assert state(ledger) == "ended"
    assert ledger._requests[KEY].incomplete


@pytest.mark.parametrize("first", [(), (2 * S,)])
def test_open_to_ended_incomplete_when_nothing_came_for_too_long(first):
    ledger = started(cap_us=10 * S)
    begin(ledger, 1, S)
    for at_us in first:
        progress(ledger, 1, at_us, 1)
    last_us = max((S, *first))
    ledger.settle_requests(last_us + 100 * S)
    assert state(ledger) in {"prefill", "decode"}
    request = ledger._requests[KEY]
    ledger.settle_requests(last_us + 100 * S + 1)
    assert (request.end_us, request.incomplete) == (last_us + (not first), True)


def test_ended_to_settled_when_the_horizon_reaches_its_end(ledger):
    begin(ledger, 1, S)
    progress(ledger, 1, 2 * S, 1)
    end(ledger, 1, 3 * S, 5)
    ticks(ledger, 9 * S, 100)
    assert ledger.settle_requests(4 * S - 1) == []
    assert state(ledger) == "ended"
    assert methods(ledger.settle_requests(4 * S)) == {1: "exclusive"}
    assert state(ledger) == "settled"


def test_settled_stays_settled_when_events_come_late(ledger):
    test_ended_to_settled_when_the_horizon_reaches_its_end(ledger)
    begin(ledger, 1, S)
    progress(ledger, 1, 2 * S, 9)
    end(ledger, 1, 5 * S, 9)
    assert (state(ledger), ledger.late_events) == ("settled", 3)
    assert ledger.settle_requests(9 * S) == []
