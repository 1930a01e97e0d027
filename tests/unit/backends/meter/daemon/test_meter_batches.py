"""The meter without sockets: where events go, what comes back, and to whom."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.exposition import sum_series
from backends.meter.daemon.counter import MICRO
from backends.meter.daemon.ledger_runner import BackendSpec, LedgerSpec
from backends.meter.daemon.sampler import CounterEvent
from backends.meter.daemon.service import BadBatchError, TooManyGatewaysError
from backends.meter.daemon.token_poller import TokenTotals
from backends.meter.protocol import (
    BackendRef,
    EventBatch,
    RequestBegin,
    RequestEnd,
    RequestProgress,
)
from tests.unit.backends.meter.meters import A, Silent, World


def two_ledgers():
    return World(
        LedgerSpec("one", Silent(), (BackendSpec("http://a:1", ("a", "a2")),)),
        LedgerSpec("two", Silent(), (BackendSpec("http://b:1"),)),
    )


def test_a_request_alone_gets_what_was_spent_in_its_time():
    world = World()
    world.pass_seconds(2)
    world.serve(7)
    (observation,) = world.settled().observations
    assert (observation.id, observation.method) == (7, "exclusive")
    assert observation.microjoules == 1_000_000


def test_events_of_a_batch_may_come_in_any_order():
    world = World()
    world.pass_seconds(3)
    events = [
        RequestEnd(7, 1_000_000, 20),
        RequestProgress(7, 1_500_000, 1),
        RequestBegin(7, 2_000_000, 0, 10, 100_000),
    ]
    world.post(*events)
    (observation,) = world.settled().observations
    assert (observation.microjoules, observation.method) == (1_000_000, "exclusive")


def test_an_observation_comes_again_until_it_was_received():
    world = World()
    world.serve(7)
    answer = world.settled()
    (observation,) = answer.observations
    assert world.post().observations == [observation]
    assert world.post(received=observation.number).observations == []


def test_two_gateways_may_use_the_same_numbers():
    world = World()
    world.post(RequestBegin(1, 0, 0, 10, 0), gateway="x")
    world.post(RequestBegin(1, 0, 0, 10, 0), gateway="y")
    world.pass_seconds(1)
    world.post(RequestEnd(1, 0, 30), gateway="x")
    world.post(RequestEnd(1, 0, 10), gateway="y")
    world.pass_seconds(5)
    (one,) = world.post(gateway="x").observations
    (other,) = world.post(gateway="y").observations
    assert (one.microjoules, other.microjoules) == (750_000, 250_000)
    assert one.method == other.method == "apportioned"


@pytest.mark.parametrize(
    ("place", "ledger"),
    [
        (BackendRef("a"), "one"),
        (BackendRef("a2"), "one"),
        (BackendRef("b:1"), "two"),
        (BackendRef("http://b:1"), "two"),
        (BackendRef("stranger", "two"), "two"),
        (BackendRef("a", "two"), "two"),
    ],
)
def test_which_ledger_a_backend_belongs_to(place, ledger):
    world = two_ledgers()
    world.pass_seconds(1)
    world.serve(1, places=[place])
    answer = world.settled(places=[place])
    assert answer.unknown == []
    assert [observation.microjoules for observation in answer.observations] == [1_000_000]
    attributed = {name: s.ledger.attributed_microjoules for name, s in world.meter.runners.items()}
    assert attributed == {"one": 0, "two": 0} | {ledger: 1_000_000}


@pytest.mark.parametrize("place", [BackendRef("stranger"), BackendRef("a", "three")])
def test_a_backend_of_no_ledger(place):
    world = two_ledgers()
    world.serve(1, places=[place])
    answer = world.settled(places=[place])
    assert answer.unknown == [place.backend]
    assert answer.observations == []
    assert sum(station.ledger.open_requests for station in world.meter.runners.values()) == 0


def test_idle_energy_is_split_evenly_and_told_once():
    world = World()
    places = [BackendRef("a"), BackendRef("b"), BackendRef("c")]
    world.post(places=places)
    world.pass_seconds(11)
    answer = world.post(places=places)
    told = {spending.backend: spending.microjoules for spending in answer.spendings}
    assert {spending.kind for spending in answer.spendings} == {"idle"}
    assert set(told) == {"a", "b", "c"}
    assert sum(told.values()) == world.meter.runners["l"].ledger.idle_microjoules == 10_000_000
    assert max(told.values()) - min(told.values()) <= 1
    assert world.post(gateway="other", places=places).spendings == []


def test_idle_energy_goes_to_who_knows_the_backend_by_whatever_name():
    world = two_ledgers()
    mine, theirs = [BackendRef("a")], [BackendRef("a2"), BackendRef("b:1")]
    world.post(gateway="me", places=mine)
    world.post(gateway="they", places=theirs)
    world.pass_seconds(11)
    (spending,) = world.post(gateway="me", places=mine).spendings
    one, two = (station.ledger for station in world.meter.runners.values())
    assert (spending.backend, spending.microjoules) == ("a", one.idle_microjoules)
    (spending,) = world.post(gateway="they", places=theirs).spendings
    assert (spending.backend, spending.microjoules) == ("b:1", two.idle_microjoules)
    before = one.idle_microjoules
    world.pass_seconds(2)
    told = world.post(gateway="they", places=theirs).spendings[1:]
    more = one.idle_microjoules - before
    assert more > 0
    assert {s.backend: s.microjoules for s in told} == {"a2": more, "b:1": more}


def test_tokens_that_nobody_reported_are_told_to_their_backends_gateway():
    world = World(LedgerSpec("l", Silent(), (BackendSpec("http://a:1", ("a",)),)))
    for second in range(6):
        world.meter.record_token_counts("http://a:1", world.now_us, TokenTotals(0, 100 * second))
        world.pass_seconds(1)
        answer = world.post()
    spent = {spending.kind for spending in answer.spendings}
    assert "other" in spent
    told = sum(spending.microjoules for spending in answer.spendings if spending.kind == "other")
    assert told == world.meter.runners["l"].ledger.other_microjoules > 0


def test_requests_of_a_gateway_that_vanished_end_with_its_last_word():
    world = World()
    world.post(RequestBegin(1, 0, 0, 10, 0))
    world.pass_seconds(1)
    world.post(RequestProgress(1, 0, 10))
    for _ in range(20):
        world.pass_seconds(1)
        world.meter.expire_gateways(world.now_us)
    ledger = world.meter.runners["l"].ledger
    assert ledger.open_requests == 0
    assert ledger.attributed_microjoules == 1_000_000


def test_a_gateway_that_was_forgotten_takes_nothing_new_for_old():
    world = World()
    world.serve(1)
    before = world.settled().observations[0].number
    world.meter.expire_gateways(world.now_us)
    world.now_us += 301 * MICRO
    world.meter.expire_gateways(world.now_us)
    assert world.meter.dropped_messages > 0
    world.serve(2)
    numbers = [observation.number for observation in world.settled().observations]
    assert numbers
    assert min(numbers) > before


@pytest.mark.parametrize(
    ("events", "places"),
    [
        ([RequestBegin(1, 0, 1, 10, 0)], [A]),
        ([RequestBegin(1, 0, -1, 10, 0)], [A]),
        ([RequestBegin(1, -5, 0, 10, 0)], [A]),
        ([RequestBegin(1, 0, 0, 1 << 60, 0)], [A]),
        ([RequestBegin(1, 0, 0, 10, -1)], [A]),
        ([RequestProgress(1, 0, -1)], [A]),
        ([RequestProgress(-1, 0, 1)], [A]),
        ([RequestEnd(1, 0, 1, -1)], [A]),
        ([RequestEnd(1, 0, 1, None, None, 1 << 60)], [A]),
        ([], [BackendRef("x" * 201)]),
        ([], [A] * 1001),
    ],
)
def test_nothing_is_taken_of_a_batch_that_makes_no_sense(events, places):
    world = World()
    with pytest.raises(BadBatchError):
        world.post(RequestBegin(9, 0, 0, 10, 0), *events, places=places)
    assert world.meter.runners["l"].ledger.open_requests == 0
    assert sum(world.meter.events.values()) == 0


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_gateway_has_a_name_of_sane_length(name):
    with pytest.raises(BadBatchError):
        World().post(gateway=name)


def test_there_is_an_end_to_how_many_gateways_are_served():
    world = World()
    for number in range(256):
        world.post(gateway=str(number), address=str(number % 4))
    with pytest.raises(TooManyGatewaysError):
        world.post(gateway="one more", address="5")
    world.post(gateway="0")  # those that are known are still served


def test_the_slowest_period_is_told_once_it_is_known():
    world = World()
    assert world.post().period_seconds is None
    sampler = world.meter.runners["l"].sampler
    sampler.open_source()
    sampler.counters[0].period_us = 100_000
    assert world.post().period_seconds == 0.1


def test_the_power_of_an_idle_gpu():
    world = World()
    for _ in range(10):
        world.pass_seconds(1)
        world.meter.expire_gateways(world.now_us)
    assert world.meter.runners["l"].idle_watts == pytest.approx(1.0)


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(0, 10**9), st.integers(0, 3), st.booleans()),
        max_size=30,
    )
)
def test_at_every_scrape_the_devices_joules_are_all_accounted_for(steps):
    world = two_ledgers()
    places = [BackendRef("a"), BackendRef("b:1")]
    for number, (tenths, microjoules, kind, scraped) in enumerate(steps):
        world.now_us += tenths * 100_000
        for name, station in world.meter.runners.items():
            device = f"gpu-{name}"
            news = CounterEvent("advance", world.now_us, {device: microjoules, "second": number})
            station.sampler._events.append(news)
        events = [
            RequestBegin(number, 50_000, number % 2, 10, 1_000),
            RequestProgress(number - 1, 20_000, 5),
            RequestEnd(number - 2, 0, 30),
        ]
        if number > 1:
            world.post(*events[:kind], places=places)
        if scraped:
            page = world.page()
            parts = ("joulegate_meter_attributed_joules_total", "joulegate_meter_unsettled_joules")
            spent = sum(round(sum_series(page, part) * MICRO) for part in parts)
            assert spent == round(sum_series(page, "joulegate_meter_energy_joules_total") * MICRO)


def test_an_older_gateways_events_are_understood():
    """They end before what came to be told later."""
    raw = (
        b'{"gateway":"g","backends":[["b",""]],"events":[["b",1,5,0,10,20],["b",2,5,0,10,20,true],'
        b'["p",1,4,1],["e",1,3,7],["e",2,3,7,10,null,100]]}'
    )
    first, second, _, end, timed = msgspec.json.decode(raw, type=EventBatch).events
    assert (first.prompt_may_change, second.prompt_may_change) == (False, True)
    assert (first.own_nanojoules, first.shared_nanojoules) == (0, -1)
    assert (end.queue_us, timed.queue_us, end.unseen) == (None, 100, False)


def test_a_newer_gateways_events_are_understood_too():
    raw = b'["b",1,5,0,10,20,true,1,2,3,"more",4]'
    assert msgspec.json.decode(raw, type=RequestBegin).shared_nanojoules == 3
