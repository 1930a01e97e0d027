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
    await link.exchange()
    clock.now += 5.0
    await link.exchange()


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
    one.end(tokens=2)
    await away(link, meter, clock)
    assert (link.settled, one.method, link.dropped) == ([one], "estimated", 1)
    two.end(tokens=2)
    assert link.settled == [one, two]
    three = begun(link)
    await link.exchange()
    assert meter.kinds() == []
    await link.exchange()
    # It may have had the batch that it did not answer, so it is told how those went on.
    assert meter.kinds() == ["Begin", "End", "Begin", "End", "Begin"]
    assert three.told == 1


@pytest.mark.parametrize("failures", [(2.05,), (0.0, 0.25, 3.9), (9.0,)])
async def test_a_meter_that_is_slow_once_or_gone_for_a_moment_is_waited_for(
    link, meter, clock, failures
):
    one, two = begun(link), begun(link)
    one.end(tokens=2)
    await link.exchange()
    two.end(tokens=2)
    started = clock.now
    for at in failures:
        clock.now = started + at
        meter.answers = [ConnectionLost("no")]
        await link.exchange()
    assert (link.up, link.settled) == (False, [])
    told = [EnergyObservation(n, m.id, 5, "exclusive") for n, m in enumerate((one, two), 1)]
    meter.answers = [MeterAck("one", told, [])]
    await link.exchange()
    assert (link.settled, link.dropped) == ([one, two], 0)


async def test_ends_that_a_meter_waits_for_are_told_when_it_is_back(link, meter, clock):
    """Whoever it has heard begin; else it holds up everybody for two minutes."""
    before, meanwhile, running = begun(link), begun(link), begun(link)
    await link.exchange()
    lost = begun(link)  # its beginning goes into a batch that is not answered
    before.end(tokens=2)
    lost.end(tokens=3)
    await away(link, meter, clock)
    meanwhile.end(tokens=4)
    unheard = begun(link)
    unheard.end(tokens=5)
    assert link.settled == [before, lost, meanwhile, unheard]
    assert {one.method for one in link.settled} == {"estimated"}
    assert [one.owner for one in link._owed.values()] == [None] * 3
    await link.exchange()
    assert meter.kinds() == []
    await link.exchange()
    told = [(type(one).__name__, one.id) for one in meter.batches[-1].events]
    assert told == [("End", before.id), ("Begin", lost.id), ("End", lost.id), ("End", meanwhile.id)]
    assert (link._owed, running.told, link.dropped) == ({}, 1, 4)
    meter.answers = [MeterAck("one", [EnergyObservation(1, before.id, 5, "exclusive")], [])]
    await link.exchange()
    assert meter.kinds() == []
    assert (len(link.settled), before.method) == (4, "estimated")


async def test_another_meter_is_owed_nothing(link, meter, clock):
    one = begun(link)
    await link.exchange()
    one.end(tokens=2)
    await away(link, meter, clock)
    meter.name = "two"
    for _ in range(2):
        await link.exchange()
    assert meter.kinds() == []
    assert link._owed == {}


async def test_what_is_owed_is_bounded(link, meter, clock, monkeypatch):
    monkeypatch.setattr(meter_client, "_MOST_WAITING", 3)
    many = [begun(link) for _ in range(5)]
    await link.exchange()
    await away(link, meter, clock)
    for one in many:
        one.end(tokens=1)
    assert link.settled == many
    assert list(link._owed) == [one.id for one in many[2:]]


async def test_another_meter_is_told_of_everything_anew(link, meter):
    running, done = begun(link), begun(link)
    await link.exchange()
    done.end(tokens=2)
    await link.exchange()
    late = begun(link)
    running.first = running.began
    meter.name = "two"
    await link.exchange()
    assert (link.settled, done.method, link.dropped) == ([done], "estimated", 1)
    await link.exchange()
    # What the batch that met it had told is told again: it never had running's beginning.
    assert meter.kinds() == ["Begin", "Progress", "Begin"]
    assert (running.told, late.told) == (2, 1)


async def test_an_end_that_is_never_observed_is_given_up(link, clock):
    one = begun(link)
    one.end(tokens=2)
    await link.exchange()
    clock.now += 129.0
    await link.exchange()
    assert link.settled == []
    clock.now += 2.0
    await link.exchange()
    assert (link.settled, one.method) == ([one], "estimated")


async def test_a_bug_in_telling_is_a_meter_that_is_away(link, meter, monkeypatch, caplog):
    monkeypatch.setattr(meter_client, "_PERIOD_SECONDS", 0.001)
    monkeypatch.setattr(meter_client, "_TIMEOUT_SECONDS", 0.0)
    one = begun(link)
    one.end(tokens=1)
    meter.answers = [TypeError("no such header"), TypeError("no such header")]
    task = asyncio.create_task(link.run())
    while not link.settled:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)
    assert (link.settled, one.method) == ([one], "estimated")
    assert "a bug in telling" in caplog.text
    while not link.up:
        link._away = False
        begun(link)
        await asyncio.sleep(0.001)
    task.cancel()
