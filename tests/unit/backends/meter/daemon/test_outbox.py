"""What gateways are told: everything once, in order, whatever gets lost on the way."""

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from backends.meter.daemon.outbox import GatewayOutbox
from backends.meter.protocol import EnergyObservation, UnattributedEnergy


def told(outbox):
    observations, spendings = outbox.list_unacknowledged()
    return sorted([*observations, *spendings], key=lambda one: one.number)


def test_it_is_told_again_until_it_has_arrived():
    outbox = GatewayOutbox(count(1))
    outbox.add_observation(7, 1_000, "exclusive")
    outbox.add_unattributed("a", idle=5, other=6)
    assert outbox.list_unacknowledged() == outbox.list_unacknowledged()
    assert told(outbox) == [
        EnergyObservation(1, 7, 1_000, "exclusive"),
        UnattributedEnergy(2, "a", "idle", 5),
        UnattributedEnergy(3, "a", "other", 6),
    ]
    outbox.acknowledge_through(2)
    assert [one.number for one in told(outbox)] == [3]
    outbox.acknowledge_through(3)
    assert told(outbox) == []


def test_what_costs_nothing_is_not_told():
    outbox = GatewayOutbox(count(1))
    outbox.add_unattributed("a")
    assert told(outbox) == []


def test_a_number_of_another_meter_covers_nothing():
    outbox = GatewayOutbox(count(1))
    outbox.add_observation(7, 1_000, "exclusive")
    outbox.acknowledge_through(500)
    assert len(told(outbox)) == 1


def test_the_oldest_are_dropped_and_counted():
    outbox = GatewayOutbox(count(1), most_kept=3)
    for request in range(5):
        outbox.add_observation(request, 1, "apportioned")
    assert [one.id for one in told(outbox)] == [2, 3, 4]
    assert outbox.dropped == 2


def test_an_answer_that_is_cut_short_is_the_oldest_part():
    outbox = GatewayOutbox(count(1))
    for request in range(2_900):
        outbox.add_observation(request, 1, "apportioned")
        outbox.add_unattributed("a", idle=1)
    first = told(outbox)
    assert [one.number for one in first] == list(range(1, len(first) + 1))
    assert 0 < len(first) < 5_800
    outbox.acknowledge_through(len(first))
    assert told(outbox)[0].number == len(first) + 1


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=50),
    st.integers(1, 1000),
)
def test_each_arrives_once_and_in_order_whatever_is_lost(rounds, first):
    """A round adds some; the gateway's post and the meter's answer each may be lost."""
    outbox = GatewayOutbox(count(first))
    added, arrived, received = 0, [], 0
    for more, post_arrives, answer_arrives in [*rounds, (0, True, True), (0, True, True)]:
        for _ in range(more):
            outbox.add_observation(added, added, "apportioned")
            added += 1
        if post_arrives:
            outbox.acknowledge_through(received)
            answer = told(outbox)
            if answer_arrives:
                arrived += [one.id for one in answer if one.number > received]
                received = max([received, *(one.number for one in answer)])
    assert arrived == list(range(added))
    assert len(outbox) == 0
