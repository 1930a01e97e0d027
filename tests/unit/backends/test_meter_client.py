"""The gateway's link to its meter, against a meter that a test scripts: loss, restarts, bounds."""

import asyncio
import time

import msgspec
import pytest

from backends.errors import ConnectionLost
from backends.meter import client as links
from backends.meter.client import MeterLink
from backends.meter.wire import Answer, Batch, Observation, Spending


class Reply:
    """An answer as Client.post returns it."""

    def __init__(self, body, status=200):
        self.status = status
        self._body = body

    async def read(self, limit):
        assert len(self._body) <= limit
        return self._body

    def close(self):
        pass


class Meter:
    """Stands where the HTTP client would: takes batches, gives the next of `answers`."""

    def __init__(self):
        self.batches = []
        self.answers = []
        self.name = "one"

    async def post(self, url, body, headers):
        self.url, self.headers = str(url), headers
        self.batches.append(msgspec.json.decode(body, type=Batch))
        answer = self.answers.pop(0) if self.answers else Answer(self.name, [], [])
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Reply):
            return answer
        return Reply(msgspec.json.encode(answer))

    def kinds(self, batch=-1):
        return [type(event).__name__ for event in self.batches[batch].events]


@pytest.fixture
def meter():
    return Meter()


@pytest.fixture
def link(meter):
    made = MeterLink("http://meter:9464", meter, secret="s")
    made.place("a:8000", "")
    return made


def begun(link):
    metered = link.begin(link._places[0], 10, 1000)
    metered.owner = ("record", "target")
    return metered


async def test_what_is_new_is_told_once_and_settled_once(link, meter):
    one, two = begun(link), begun(link)
    await link.exchange()
    one.end(tokens=3)
    meter.answers = [
        Answer("one", [], []),
        Answer("one", [Observation(1, one.id, 5, "exclusive")], []),
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

    monkeypatch.setattr(links, "time", Time)
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
    told = [Observation(n, m.id, 5, "exclusive") for n, m in enumerate((one, two), 1)]
    meter.answers = [Answer("one", told, [])]
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
    meter.answers = [Answer("one", [Observation(1, before.id, 5, "exclusive")], [])]
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
    monkeypatch.setattr(links, "_MOST_WAITING", 3)
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


async def test_an_observation_of_a_running_request_ends_its_metering(link, meter):
    one = begun(link)
    meter.answers = [Answer("one", [Observation(1, one.id, 5, "estimated")], [])]
    await link.exchange()
    assert link.settled == []
    one.end(tokens=2)
    assert (link.settled, one.method, link.dropped) == ([one], "estimated", 1)
    await link.exchange()
    assert meter.kinds() == []


async def test_what_the_meter_saw_in_part_is_estimated_and_counted(link, meter):
    one = begun(link)
    one.end(tokens=2)
    meter.answers = [Answer("one", [Observation(1, one.id, 5, "estimated")], [])]
    await link.exchange()
    assert (link.settled, one.microjoules, link.dropped) == ([one], 0, 1)


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


async def test_spendings_are_taken_once(link, meter):
    told = [Spending(4, "a:8000", "idle", 10), Spending(5, "a:8000", "other", 20)]
    meter.answers = [Answer("one", [], told[:1]), Answer("one", [], told), Answer("one", [], told)]
    for _ in range(3):
        await link.exchange()
    assert link.spendings == told


@pytest.mark.parametrize(
    "answer",
    [
        Answer("one", [Observation(-1, 1, 5, "exclusive")], []),
        Answer("one", [Observation(1, 1, -5, "exclusive")], []),
        Answer("one", [Observation(1 << 60, 1, 5, "exclusive")], []),
        Answer("one", [], [Spending(1, "a:8000", "idle", -1)]),
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
    meter.answers = [Answer("one", [], [], unknown=["a:8000"])]
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


async def test_a_bug_in_telling_is_a_meter_that_is_away(link, meter, monkeypatch, caplog):
    monkeypatch.setattr(links, "_PERIOD_SECONDS", 0.001)
    monkeypatch.setattr(links, "_TIMEOUT_SECONDS", 0.0)
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
