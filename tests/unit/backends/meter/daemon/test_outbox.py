"""What gateways are told: everything once, in order, whatever gets lost on the way."""

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from backends.meter.daemon.outbox import Outbox
from backends.meter.protocol import Observation, Spending


def told(outbox):
    observations, spendings = outbox.tell()
    return sorted([*observations, *spendings], key=lambda one: one.number)


def test_it_is_told_again_until_it_has_arrived():
    outbox = Outbox(count(1))
    outbox.observe(7, 1_000, "exclusive")
    outbox.spend("a", idle=5, other=6)
    assert outbox.tell() == outbox.tell()
    assert told(outbox) == [
        Observation(1, 7, 1_000, "exclusive"),
        Spending(2, "a", "idle", 5),
        Spending(3, "a", "other", 6),
    ]
    outbox.received(2)
    assert [one.number for one in told(outbox)] == [3]
    outbox.received(3)
    assert told(outbox) == []


def test_what_costs_nothing_is_not_told():
    outbox = Outbox(count(1))
    outbox.spend("a")
    assert told(outbox) == []


def test_a_number_of_another_meter_covers_nothing():
    outbox = Outbox(count(1))
    outbox.observe(7, 1_000, "exclusive")
    outbox.received(500)
    assert len(told(outbox)) == 1


def test_the_oldest_are_dropped_and_counted():
    outbox = Outbox(count(1), most_kept=3)
    for request in range(5):
        outbox.observe(request, 1, "apportioned")
    assert [one.id for one in told(outbox)] == [2, 3, 4]
    assert outbox.dropped == 2


def test_an_answer_that_is_cut_short_is_the_oldest_part():
    outbox = Outbox(count(1))
    for request in range(6_000):
        outbox.observe(request, 1, "apportioned")
        outbox.spend("a", idle=1)
    first = told(outbox)
    assert [one.number for one in first] == list(range(1, len(first) + 1))
    assert 0 < len(first) < 12_000
    outbox.received(len(first))
    assert told(outbox)[0].number == len(first) + 1


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=50),
    st.integers(1, 1000),
)
def test_each_arrives_once_and_in_order_whatever_is_lost(rounds, first):
    """A round adds some; the gateway's post and the meter's answer each may be lost."""
    outbox = Outbox(count(first))
    added, arrived, received = 0, [], 0
    for more, post_arrives, answer_arrives in [*rounds, (0, True, True), (0, True, True)]:
        for _ in range(more):
            outbox.observe(added, added, "apportioned")
            added += 1
        if post_arrives:
            outbox.received(received)
            answer = told(outbox)
            if answer_arrives:
                arrived += [one.id for one in answer if one.number > received]
                received = max([received, *(one.number for one in answer)])
    assert arrived == list(range(added))
    assert len(outbox) == 0
