"""A ledger at work: counters that stand still, and from when on idle energy is told."""

import pytest

from backends.exposition import sum_series
from backends.meter.protocol import RequestBegin, RequestEnd, RequestProgress
from tests.unit.backends.meter.meters import World


def method(world, *, seconds=0.5):
    """How a request was measured that is served now."""
    number = world.now_us + 1
    world.serve(number, seconds)
    (mine,) = [one for one in world.settled().observations if one.id == number]
    return mine.method


def test_who_is_served_while_the_counter_stands_still_is_not_measured():
    world = World()
    world.pass_seconds(2)
    world.post(RequestBegin(1, 0, 0, 10, 0))
    world.tell(1, 0)
    world.post(RequestProgress(1, 500_000, 1), RequestEnd(1, 0, 20))
    (observation,) = world.settled().observations
    assert observation.method == "estimated"
    assert method(world) == "exclusive"


def test_what_a_counter_shows_when_it_moves_again_is_not_the_next_ones():
    world = World()
    world.pass_seconds(2)
    world.post(RequestBegin(1, 0, 0, 10, 0))
    world.tell(0.1, 100_000)
    for _ in range(3):
        world.post(RequestProgress(1, 0, 1))
        world.tell(1, 0)
    world.post(RequestEnd(1, 0, 20), RequestBegin(2, 0, 0, 10, 0))
    world.tell(0.1, 3_100_000)
    world.post(RequestProgress(2, 0, 1), RequestEnd(2, 0, 20))
    told = {one.id: one.method for one in world.settled().observations}
    assert told == {1: "estimated", 2: "estimated"}
    assert method(world) == "exclusive"
    ledger = world.meter.runners["l"].ledger
    world.meter.deliver_settled(world.now_us + 200_000_000)
    assert (
        ledger.advanced_microjoules
        == ledger.attributed_microjoules + ledger.idle_microjoules
        == sum(_energy(world))
    )


def _energy(world):
    return world.meter.stations["l"].energy.values()


def test_one_of_two_counters_standing_still_is_enough_and_loses_no_joules():
    world = World()
    world.tell(1, 5, 5)
    world.post(RequestBegin(1, 0, 0, 10, 0))
    world.tell(1, 1_000_000, 0)
    world.post(RequestProgress(1, 500_000, 1), RequestEnd(1, 0, 20))
    world.tell(5, 5, 5)
    (observation,) = world.post().observations
    assert observation.method == "estimated"
    assert sum(_energy(world)) == world.meter.runners["l"].ledger.advanced_microjoules == 1_000_020


def test_devices_that_draw_nothing_while_nobody_is_there_are_believed():
    """No GPU's counter stands still; a simulated one may, and loses nobody's joules by it."""
    world = World()
    for _ in range(5):
        world.tell(1, 0)
        world.meter.expire_gateways(world.now_us)
    assert method(world) == "exclusive"


@pytest.mark.parametrize("seconds", [0, 1, 100])
def test_idle_energy_is_told_from_the_first_hearing_on(seconds):
    world = World()
    for _ in range(seconds):
        world.pass_seconds(1)
        world.meter.expire_gateways(world.now_us)
    ledger = world.meter.runners["l"].ledger
    before = ledger.idle_microjoules
    told = sum(one.microjoules for one in world.post().spendings)
    for _ in range(10):
        world.pass_seconds(1)
        answer = world.post()
    told = sum(one.microjoules for one in answer.spendings)
    assert told == ledger.idle_microjoules - before > 0
    page = world.page()
    idle = sum_series(page, "joulegate_meter_attributed_joules_total", kind="idle")
    assert round(idle * 1e6) == ledger.idle_microjoules  # the meter's own page has it all


def test_idle_energy_of_a_gateways_absence_is_not_lost():
    world = World()
    world.post()
    heard = world.meter.runners["l"].ledger.idle_microjoules
    for _ in range(400):
        world.pass_seconds(1)
        world.meter.expire_gateways(world.now_us)
    world.pass_seconds(1)
    answer = world.post(gateway="started anew")
    idle = world.meter.runners["l"].ledger.idle_microjoules
    assert sum(one.microjoules for one in answer.spendings) == idle - heard > 390_000_000


def test_events_that_a_ledger_refuses_are_counted():
    world = World()
    name = "joulegate_meter_dropped_events_total"
    assert sum_series(world.page(), name, ledger="l") == 0
    world.post(RequestEnd(1, 0, 20))
    for _ in range(2):  # it goes on posting, or it would be taken to be gone
        world.pass_seconds(6)
        world.post()
    assert sum_series(world.page(), name, ledger="l") == 1
