"""Who is served next of those that wait."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.service.fair_queue import FairQueue

COMERS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=60)


def fill(comers):
    queue = FairQueue()
    for number, (key, priority) in enumerate(comers):
        queue.add((number, key, priority), key, priority)
    return queue


def drain(queue):
    found = []
    while (one := queue.pop_next()) is not None:
        found.append(one)
    return found


def test_keys_take_turns_within_a_priority():
    queue = fill([("big", 0)] * 5 + [("small", 0)] * 2 + [("first", 1)])
    assert [key for _, key, _ in drain(queue)] == [
        "first", "big", "small", "big", "small", "big", "big", "big",
    ]  # fmt: skip


@given(COMERS)
def test_all_are_served_once_in_order_of_priority_and_of_arrival_within_a_key(comers):
    served = drain(fill(comers))
    assert sorted(served) == [(n, *comer) for n, comer in enumerate(comers)]
    priorities = [priority for *_, priority in served]
    assert priorities == sorted(priorities, reverse=True)
    for which in set(comers):
        of_one = [number for number, *comer in served if tuple(comer) == which]
        assert of_one == sorted(of_one)


@given(COMERS)
def test_within_a_priority_no_key_is_served_twice_while_another_waits(comers):
    queue = fill(comers)
    waiting = Counter(comers)
    since: dict[tuple[str, int], Counter[str]] = {}
    for _, key, priority in drain(queue):
        for other in "abc":
            if other != key and waiting[other, priority]:
                between = since.setdefault((other, priority), Counter())
                between[key] += 1
                assert between[key] <= 1, (key, "was served twice before", other)
        since.pop((key, priority), None)
        waiting[key, priority] -= 1


@given(COMERS, st.sampled_from("abc"), st.integers(0, 2))
def test_count_before_is_how_many_go_before_a_newcomer(comers, key, priority):
    queue = fill(comers)
    told = queue.count_before(key, priority)
    queue.add("newcomer", key, priority)
    place = drain(queue).index("newcomer")
    # Who of the others goes first in a round depends on whose turn it is.
    assert told - 2 <= place <= told


@given(COMERS, st.sampled_from("abc"), st.integers(0, 2))
def test_a_full_queue_gives_way_to_who_has_fewer_and_never_to_a_lower_priority(
    comers, key, priority
):
    queue = fill(comers)
    before = Counter(comers)
    evicted = queue.evict_for(key, priority)
    if evicted is None:
        lowest = min((p for _, p in comers), default=priority)
        most = max((before[k, lowest] for k in "abc"), default=0)
        assert lowest > priority or (lowest == priority and most <= before[key, priority] + 1)
        return
    _, of, rank = evicted
    assert len(queue) == len(comers) - 1
    assert rank <= priority
    assert rank < priority or before[of, rank] > before[key, priority] + 1
    assert evicted[0] == max(n for n, comer in enumerate(comers) if comer == (of, rank))


@given(COMERS, st.data())
def test_who_waits_no_more_is_taken_out_once(comers, data):
    queue = fill(comers)
    gone = data.draw(st.sets(st.integers(0, max(0, len(comers) - 1))))
    for number in gone & set(range(len(comers))):
        waiter = (number, *comers[number])
        assert queue.remove(waiter, *comers[number])
        assert not queue.remove(waiter, *comers[number])
    left = [n for n in range(len(comers)) if n not in gone]
    assert len(queue) == len(left)
    assert sorted(n for n, *_ in drain(queue)) == left
