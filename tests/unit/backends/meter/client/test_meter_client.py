"""The gateway's link to its meter, against a meter that a test scripts: what is told and taken."""

import pytest

from backends.errors import ConnectionLost
from backends.meter.protocol import EnergyObservation, MeterAck, UnattributedEnergy
from tests.unit.backends.meter.client import meter_links as links
from tests.unit.backends.meter.client.meter_links import Reply, begun

meter, link = links.meter, links.link


async def test_what_is_new_is_told_once_and_settled_once(link, meter):
    one, two = begun(link), begun(link)
    await link.exchange_batch()
    one.end_attempt(tokens=3)
    meter.answers = [
        MeterAck("one", [], []),
        MeterAck("one", [EnergyObservation(1, one.id, 5, "exclusive")], []),
    ]
    for _ in range(3):
        await link.exchange_batch()
    assert [meter.kinds(n) for n in range(4)] == [
        ["RequestBegin", "RequestBegin"],
        ["RequestEnd"],
        [],
        [],
    ]
    assert (link.finished_attempts, one.microjoules, one.method) == ([one], 5, "exclusive")
    assert [batch.received for batch in meter.batches] == [0, 0, 0, 1]
    assert (meter.url, meter.headers["Authorization"]) == (
        "http://meter:9464/v1/events",
        "Bearer s",
    )
    assert (link.last_exchange_ok, link.unmeasured_requests) == (True, 0)
    assert two.reported_stage == 1


async def test_a_lost_batch_is_made_anew(link, meter):
    one = begun(link)
    meter.answers = [ConnectionLost("reset")]
    await link.exchange_batch()
    assert not link.last_exchange_ok
    one.end_attempt(tokens=2)
    await link.exchange_batch()
    assert meter.kinds() == ["RequestBegin", "RequestEnd"]
    assert link.last_exchange_ok


async def test_what_ends_while_a_batch_travels_is_told_by_the_next(link, meter):
    one = begun(link)
    send = meter.post

    async def post(*arguments):
        reply = await send(*arguments)
        if not one.ended_at:
            one.end_attempt(tokens=2)
        return reply

    meter.post = post
    await link.exchange_batch()
    await link.exchange_batch()
    assert [meter.kinds(n) for n in range(2)] == [["RequestBegin"], ["RequestEnd"]]


async def test_an_observation_of_a_running_request_ends_its_metering(link, meter):
    one = begun(link)
    meter.answers = [MeterAck("one", [EnergyObservation(1, one.id, 5, "estimated")], [])]
    await link.exchange_batch()
    assert link.finished_attempts == []
    one.end_attempt(tokens=2)
    assert (link.finished_attempts, one.method, link.unmeasured_requests) == ([one], "estimated", 1)
    await link.exchange_batch()
    assert meter.kinds() == []


async def test_what_the_meter_saw_in_part_is_estimated_and_counted(link, meter):
    one = begun(link)
    one.end_attempt(tokens=2)
    meter.answers = [MeterAck("one", [EnergyObservation(1, one.id, 5, "estimated")], [])]
    await link.exchange_batch()
    assert (link.finished_attempts, one.microjoules, link.unmeasured_requests) == ([one], 0, 1)


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
        await link.exchange_batch()
    assert link.unattributed_energy == told


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
    await link.exchange_batch()
    assert (
        link.last_exchange_ok,
        link.finished_attempts,
        link.unattributed_energy,
        one.reported_stage,
    ) == (False, [], [], 0)
    await link.exchange_batch()
    assert (link.last_exchange_ok, one.reported_stage) == (True, 1)


async def test_an_unknown_backend_is_not_waited_for(link, meter):
    one = begun(link)
    meter.answers = [MeterAck("one", [], [], unknown=["a:8000"])]
    await link.exchange_batch()
    one.end_attempt(tokens=2)
    assert (link.finished_attempts, one.method) == ([one], "estimated")
    await link.exchange_batch()
    assert link._backend_meters[0].has_ledger


def test_what_waits_is_bounded(link):
    for _ in range(50_003):
        begun(link).end_attempt(tokens=1)
    assert [metered.id for metered in link.finished_attempts] == [1, 2, 3]
    assert link.unmeasured_requests == 3


def test_closing_gives_up_what_is_open(link):
    one, two = begun(link), begun(link)
    one.end_attempt(tokens=1)
    link.close()
    assert set(link.finished_attempts) == {one, two}
    assert {metered.method for metered in link.finished_attempts} == {"estimated"}


def test_an_attempt_that_nobody_owns_is_not_counted_as_unmetered(link):
    link.begin_request(link._backend_meters[0], 1, 1).record_refusal()
    link.close()
    assert link.unmeasured_requests == 0


async def test_a_large_backlog_goes_in_several_batches(link, meter):
    for _ in range(5000):
        begun(link).end_attempt(tokens=1)
    while await link.exchange_batch():
        pass
    assert [len(batch.events) for batch in meter.batches] == [8000, 2000]
