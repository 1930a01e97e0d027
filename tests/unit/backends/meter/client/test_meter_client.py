"""The gateway's link to its meter, against a meter that a test scripts: what is told and taken."""

import pytest

from backends.errors import ConnectionLost
from backends.meter.protocol import EnergyObservation, MeterAck, UnattributedEnergy
from tests.unit.backends.meter.client import meter_links as links
from tests.unit.backends.meter.client.meter_links import Reply, begun

meter, link = links.meter, links.link


async def test_what_is_new_is_told_once_and_settled_once(link, meter):
    one, two = begun(link), begun(link)
    await link.exchange()
    one.end(tokens=3)
    meter.answers = [
        MeterAck("one", [], []),
        MeterAck("one", [EnergyObservation(1, one.id, 5, "exclusive")], []),
    ]
    for _ in range(3):
        await link.exchange()
    assert [meter.kinds(n) for n in range(4)] == [["Begin", "Begin"], ["End"], [], []]
    assert (link.settled, one.microjoules, one.method) == ([one], 5, "exclusive")
    assert [batch.received for batch in meter.batches] == [0, 0, 0, 1]
    assert (meter.url, meter.headers["Authorization"]) == (
        "http://meter:9464/v1/events",
        "Bearer s",
    )
    assert (link.up, link.dropped) == (True, 0)
    assert two.told == 1


async def test_a_lost_batch_is_made_anew(link, meter):
    one = begun(link)
    meter.answers = [ConnectionLost("reset")]
    await link.exchange()
    assert not link.up
    one.end(tokens=2)
    await link.exchange()
    assert meter.kinds() == ["Begin", "End"]
    assert link.up


async def test_what_ends_while_a_batch_travels_is_told_by_the_next(link, meter):
    one = begun(link)
    send = meter.post

    async def post(*arguments):
        reply = await send(*arguments)
        if not one.ended:
            one.end(tokens=2)
        return reply

    meter.post = post
    await link.exchange()
    await link.exchange()
    assert [meter.kinds(n) for n in range(2)] == [["Begin"], ["End"]]


async def test_an_observation_of_a_running_request_ends_its_metering(link, meter):
    one = begun(link)
    meter.answers = [MeterAck("one", [EnergyObservation(1, one.id, 5, "estimated")], [])]
    await link.exchange()
    assert link.settled == []
    one.end(tokens=2)
    assert (link.settled, one.method, link.dropped) == ([one], "estimated", 1)
    await link.exchange()
    assert meter.kinds() == []


async def test_what_the_meter_saw_in_part_is_estimated_and_counted(link, meter):
    one = begun(link)
    one.end(tokens=2)
    meter.answers = [MeterAck("one", [EnergyObservation(1, one.id, 5, "estimated")], [])]
    await link.exchange()
    assert (link.settled, one.microjoules, link.dropped) == ([one], 0, 1)


async def test_spendings_are_taken_once(link, meter):
    told = [
        UnattributedEnergy(4, "a:8000", "idle", 10),
        UnattributedEnergy(5, "a:8000", "other", 20),
    ]
    meter.answers = [
        MeterAck("one", [], told[:1]),
        MeterAck("one", [], told),
        MeterAck("one", [], told),
    ]
    for _ in range(3):
        await link.exchange()
    assert link.spendings == told


@pytest.mark.parametrize(
    "answer",
    [
        MeterAck("one", [EnergyObservation(-1, 1, 5, "exclusive")], []),
        MeterAck("one", [EnergyObservation(1, 1, -5, "exclusive")], []),
        MeterAck("one", [EnergyObservation(1 << 60, 1, 5, "exclusive")], []),
        MeterAck("one", [], [UnattributedEnergy(1, "a:8000", "idle", -1)]),
        Reply(b"", 500),
        Reply(b"{}"),
        Reply(b"[" * 1000),
    ],
)
async def test_an_answer_that_cannot_be_is_no_answer(link, meter, answer):
    one = begun(link)
    meter.answers = [answer]
    await link.exchange()
    assert (link.up, link.settled, link.spendings, one.told) == (False, [], [], 0)
    await link.exchange()
    assert (link.up, one.told) == (True, 1)


async def test_an_unknown_backend_is_not_waited_for(link, meter):
    one = begun(link)
    meter.answers = [MeterAck("one", [], [], unknown=["a:8000"])]
    await link.exchange()
    one.end(tokens=2)
    assert (link.settled, one.method) == ([one], "estimated")
    await link.exchange()
    assert link._places[0].known


def test_what_waits_is_bounded(link):
    for _ in range(50_003):
        begun(link).end(tokens=1)
    assert [metered.id for metered in link.settled] == [1, 2, 3]
    assert link.dropped == 3


def test_closing_gives_up_what_is_open(link):
    one, two = begun(link), begun(link)
    one.end(tokens=1)
    link.close()
    assert set(link.settled) == {one, two}
    assert {metered.method for metered in link.settled} == {"estimated"}


def test_an_attempt_that_nobody_owns_is_not_counted_as_unmetered(link):
    link.begin(link._places[0], 1, 1).refused()
    link.close()
    assert link.dropped == 0


async def test_a_large_backlog_goes_in_several_batches(link, meter):
    for _ in range(5000):
        begun(link).end(tokens=1)
    while await link.exchange():
        pass
    assert [len(batch.events) for batch in meter.batches] == [8000, 2000]
