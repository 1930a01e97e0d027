"""How many are served at once, who waits, and who is refused."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from backends.deployment_room import DeploymentRoom
from gateway.config import LimitsConfig
from gateway.service.admission import AdmissionControl, AnswerTimes, share_limit
from gateway.service.client.errors import GatewayBusy
from gateway.telemetry.metrics import GatewayMetrics
from tests.manual_clock import ManualClock


class Desk:
    """Admission with a clock of its own; requests are names."""

    def __init__(self, **limits):
        self.clock = ManualClock()
        self.metrics = GatewayMetrics(CollectorRegistry())
        self.control = AdmissionControl(
            LimitsConfig(**limits), self.metrics.admission, clock=self.clock
        )

    def serve(self, seconds):
        """Let one answer take so long."""
        lifeline = object()
        self.control._running[lifeline] = self.clock.now
        self.clock.now += seconds
        self.control.leave(lifeline)

    async def come(self, name, *args, **kwargs):
        """Start a request; the task ends when it is admitted."""
        task = asyncio.create_task(self.control.enter(name, *args, **kwargs))
        await asyncio.sleep(0)
        return task

    def refused(self, reason):
        found = self.metrics.registry.get_sample_value(
            "joulegate_admission_refused_requests_total", {"reason": reason}
        )
        return int(found)


async def test_what_is_over_the_limit_waits_its_turn():
    desk = Desk(max_running=2)
    for name in ("one", "two"):
        await desk.control.enter(name)
    three, four = await desk.come("three"), await desk.come("four")
    assert (desk.control.running, desk.control.waiting) == (2, 2)
    desk.control.leave("one")
    await three
    assert not four.done()
    desk.control.leave("three")
    await four
    for name in ("two", "four", "never came"):
        desk.control.leave(name)
    assert (desk.control.running, desk.control.waiting) == (0, 0)


async def test_keys_take_turns_and_priorities_go_first():
    desk = Desk(max_running=1)
    await desk.control.enter("first")
    order = []

    async def ask(name, key, priority):
        await desk.control.enter(name, key, priority)
        order.append(name)
        desk.control.leave(name)

    asked = [("a1", "a", 0), ("a2", "a", 0), ("a3", "a", 0), ("b1", "b", 0), ("c1", "c", 5)]
    tasks = [asyncio.create_task(ask(*one)) for one in asked]
    await asyncio.sleep(0)
    desk.control.leave("first")
    await asyncio.gather(*tasks)
    assert order == ["c1", "a1", "b1", "a2", "a3"]


async def test_a_full_queue_refuses_with_a_time_to_come_back():
    desk = Desk(max_running=1, max_queued=2)
    desk.serve(4.0)
    await desk.control.enter("one")
    waiting = [await desk.come(name, "big") for name in ("two", "three")]
    with pytest.raises(GatewayBusy) as caught:
        await desk.control.enter("four", "big")
    assert caught.value.status == 429
    assert caught.value.retry_after_seconds == 8
    assert (b"retry-after", b"8") in caught.value.build_headers()
    # A key that has nothing waiting takes the place of the last of the one that has most.
    small = await desk.come("five", "small")
    with pytest.raises(GatewayBusy):
        await waiting[1]
    assert desk.refused("queue_full") == 2
    desk.control.leave("one")
    await waiting[0]
    desk.control.leave("two")
    await small
    assert desk.control.waiting == 0


async def test_what_cannot_be_served_in_time_is_refused_when_it_comes():
    desk = Desk(max_running=1)
    desk.serve(4.0)
    await desk.control.enter("one")
    two = await desk.come("two", read_seconds=60.0)
    with pytest.raises(GatewayBusy):
        await desk.control.enter("three", read_seconds=7.0)  # 4 s of waiting and 4 s of answering
    assert desk.refused("too_late") == 1
    three = await desk.come("three", read_seconds=10.0)
    for name, task in (("one", two), ("two", three)):
        desk.control.leave(name)
        await task


async def test_who_waits_too_long_is_refused_and_leaves_nothing():
    desk = Desk(max_running=1, max_queue_seconds=0.01)
    await desk.control.enter("one")
    with pytest.raises(GatewayBusy):
        await desk.control.enter("two")
    assert desk.refused("timed_out") == 1
    assert desk.control.waiting == 0
    desk.control.leave("one")
    await desk.control.enter("three")


async def test_who_leaves_the_queue_at_its_turn_gives_the_turn_on():
    desk = Desk(max_running=1)
    await desk.control.enter("one")
    two, three = await desk.come("two"), await desk.come("three")
    desk.control.leave("one")  # it is two's turn, and two does not know yet
    two.cancel()
    await three
    with pytest.raises(asyncio.CancelledError):
        await two
    desk.control.leave("three")
    assert desk.control.running == 0


async def test_rooms_are_waited_for_apart_and_promised_to_who_waited():
    desk = Desk(max_running=10)
    small, large = DeploymentRoom(1), DeploymentRoom(1)
    desk.control.watch_rooms([small, large])
    for room, name in ((small, "s"), (large, "l")):
        await desk.control.enter(name)
        room.enter()
    either = asyncio.create_task(desk.control.wait_for_room("x", (small, large)))
    only = asyncio.create_task(desk.control.wait_for_room("y", (small,)))
    await asyncio.sleep(0)
    large.leave()
    assert large.is_full  # promised
    await either
    large.enter()
    assert not only.done()
    small.leave()
    assert small.is_full
    await only
    assert not small.is_full  # the caller enters at once, as the pipeline does


async def test_a_limit_that_is_raised_or_a_room_that_goes_wakes_who_waits():
    desk = Desk(max_running=1)
    room = DeploymentRoom(1)
    desk.control.watch_rooms([room])
    await desk.control.enter("one")
    two = await desk.come("two")
    desk.control.change_limits(LimitsConfig(max_running=3))
    await two
    room.enter()
    waiting = asyncio.create_task(desk.control.wait_for_room("two", (room,)))
    await asyncio.sleep(0)
    desk.control.watch_rooms([])
    await waiting
    desk.control.change_limits(LimitsConfig())
    for number in range(100):
        await desk.control.enter(number)


def test_a_workers_part_and_the_times_of_answers():
    assert [share_limit(most, 4) for most in (1, 4, 5, 8)] == [1, 1, 2, 2]
    times = AnswerTimes()
    assert times.most_seconds == 0.0
    for _ in range(100):
        times.add_answer(2.0)
    assert times.mean_seconds == times.most_seconds == 2.0
    for _ in range(100):
        times.add_answer(1.0)
        times.add_answer(3.0)
    assert abs(times.mean_seconds - 2.0) < 0.2
    assert times.most_seconds > 3.0
