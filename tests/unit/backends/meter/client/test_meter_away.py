"""A meter that stays away, or comes back as another: what is given up, and what it is told."""

import asyncio
import time

import pytest

from backends.errors import ConnectionLost
from backends.meter.client import meter_client
from backends.meter.protocol import EnergyObservation, MeterAck
from tests.unit.backends.meter.client import meter_links as links
from tests.unit.backends.meter.client.meter_links import begun

meter, link = links.meter, links.link


async def away(link, meter, clock):
    meter.answers = [ConnectionLost("no"), ConnectionLost("no")]
    await link.exchange_batch()
    clock.now += 5.0
    await link.exchange_batch()


class Clock:
    def __init__(self):
        self.now = time.monotonic()


@pytest.fixture
def clock(monkeypatch):
    """The link's own clock, which may be moved."""
    made = Clock()

    class Time:
        @staticmethod
        def monotonic():
            return made.now

    monkeypatch.setattr(meter_client, "time", Time)
    return made


async def test_a_meter_that_stays_away_holds_nothing(link, meter, clock):
    one, two = begun(link), begun(link)
    one.end_attempt(tokens=2)
    await away(link, meter, clock)
    assert (link.finished_attempts, one.method, link.unmeasured_requests) == ([one], "estimated", 1)
    two.end_attempt(tokens=2)
    assert link.finished_attempts == [one, two]
    three = begun(link)
    await link.exchange_batch()
    assert meter.kinds() == []
    await link.exchange_batch()
    # It may have had the batch that it did not answer, so it is told how those went on.
    assert meter.kinds() == [
        "RequestBegin",
        "RequestEnd",
        "RequestBegin",
        "RequestEnd",
        "RequestBegin",
    ]
    assert three.reported_stage == 1


@pytest.mark.parametrize("failures", [(2.05,), (0.0, 0.25, 3.9), (9.0,)])
async def test_a_meter_that_is_slow_once_or_gone_for_a_moment_is_waited_for(
    link, meter, clock, failures
):
    one, two = begun(link), begun(link)
    one.end_attempt(tokens=2)
    await link.exchange_batch()
    two.end_attempt(tokens=2)
    started = clock.now
    for at in failures:
        clock.now = started + at
        meter.answers = [ConnectionLost("no")]
        await link.exchange_batch()
    assert (link.last_exchange_ok, link.finished_attempts) == (False, [])
    told = [EnergyObservation(n, m.id, 5, "exclusive") for n, m in enumerate((one, two), 1)]
    meter.answers = [MeterAck("one", told, [])]
    await link.exchange_batch()
    assert (link.finished_attempts, link.unmeasured_requests) == ([one, two], 0)


async def test_ends_that_a_meter_waits_for_are_told_when_it_is_back(link, meter, clock):
    """Whoever it has heard begin; else it holds up everybody for two minutes."""
    before, meanwhile, running = begun(link), begun(link), begun(link)
    await link.exchange_batch()
    lost = begun(link)  # its beginning goes into a batch that is not answered
    before.end_attempt(tokens=2)
    lost.end_attempt(tokens=3)
    await away(link, meter, clock)
    meanwhile.end_attempt(tokens=4)
    unheard = begun(link)
    unheard.end_attempt(tokens=5)
    assert link.finished_attempts == [before, lost, meanwhile, unheard]
    assert {one.method for one in link.finished_attempts} == {"estimated"}
    assert [one.on_energy for one in link._unacked_ends.values()] == [None] * 3
    await link.exchange_batch()
    assert meter.kinds() == []
    await link.exchange_batch()
    told = [(type(one).__name__, one.id) for one in meter.batches[-1].events]
    assert told == [
        ("RequestEnd", before.id),
        ("RequestBegin", lost.id),
        ("RequestEnd", lost.id),
        ("RequestEnd", meanwhile.id),
    ]
    assert (link._unacked_ends, running.reported_stage, link.unmeasured_requests) == ({}, 1, 4)
    meter.answers = [MeterAck("one", [EnergyObservation(1, before.id, 5, "exclusive")], [])]
    await link.exchange_batch()
    assert meter.kinds() == []
    assert (len(link.finished_attempts), before.method) == (4, "estimated")


async def test_another_meter_is_owed_nothing(link, meter, clock):
    one = begun(link)
    await link.exchange_batch()
    one.end_attempt(tokens=2)
    await away(link, meter, clock)
    meter.name = "two"
    for _ in range(2):
        await link.exchange_batch()
    assert meter.kinds() == []
    assert link._unacked_ends == {}


async def test_what_is_owed_is_bounded(link, meter, clock, monkeypatch):
    monkeypatch.setattr(meter_client, "_MOST_WAITING", 3)
    many = [begun(link) for _ in range(5)]
    await link.exchange_batch()
    await away(link, meter, clock)
    for one in many:
        one.end_attempt(tokens=1)
    assert link.finished_attempts == many
    assert list(link._unacked_ends) == [one.id for one in many[2:]]


async def test_another_meter_is_told_of_everything_anew(link, meter):
    running, done = begun(link), begun(link)
    await link.exchange_batch()
    done.end_attempt(tokens=2)
    await link.exchange_batch()
    late = begun(link)
    running.first_content_at = running.began_at
    meter.name = "two"
    await link.exchange_batch()
    assert (link.finished_attempts, done.method, link.unmeasured_requests) == (
        [done],
        "estimated",
        1,
    )
    await link.exchange_batch()
    # What the batch that met it had told is told again: it never had running's beginning.
    assert meter.kinds() == ["RequestBegin", "RequestProgress", "RequestBegin"]
    assert (running.reported_stage, late.reported_stage) == (2, 1)


async def test_an_end_that_is_never_observed_is_given_up(link, clock):
    one = begun(link)
    one.end_attempt(tokens=2)
    await link.exchange_batch()
    clock.now += 129.0
    await link.exchange_batch()
    assert link.finished_attempts == []
    clock.now += 2.0
    await link.exchange_batch()
    assert (link.finished_attempts, one.method) == ([one], "estimated")


async def test_a_bug_in_telling_is_a_meter_that_is_away(link, meter, monkeypatch, caplog):
    monkeypatch.setattr(meter_client, "_PERIOD_SECONDS", 0.001)
    monkeypatch.setattr(meter_client, "_TIMEOUT_SECONDS", 0.0)
    one = begun(link)
    one.end_attempt(tokens=1)
    meter.answers = [TypeError("no such header"), TypeError("no such header")]
    task = asyncio.create_task(link.run())
    while not link.finished_attempts:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)
    assert (link.finished_attempts, one.method) == ([one], "estimated")
    assert "a bug in exchanging a batch" in caplog.text
    while not link.last_exchange_ok:
        link._away = False
        begun(link)
        await asyncio.sleep(0.001)
    task.cancel()
