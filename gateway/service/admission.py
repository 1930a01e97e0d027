"""How many requests are served at once, and who waits: bounded, fair between keys, in time or not.

                 a place is free, nobody waits
      (came) ----------------------------------> RUNNING ---> (left: the next one's turn)
         |                                          ^
         |  the queue has room for it,              |  its turn
         |  and it can be served in time            |
         +------------------------------------> WAITING ---> refused: 429 with Retry-After
         |                                                   (its time is over, or another key's
         +--> refused: 429 with Retry-After                   newcomer needs the place)

Rules: a request waits for a place at the gateway, at one of the deployments that could serve it, or
for both; while it waits it holds neither. It waits no longer than `max_queue_seconds`, and no
longer than its client reads (`x-stainless-read-timeout`) less what most answers have taken. One
that could not be served by then is refused when it comes, before it has cost anything. Who comes
while others wait waits behind them. Of each limit every worker of a host has its part.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Final

from backends.deployment_room import DeploymentRoom
from gateway.config import LimitsConfig
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.client.errors import GatewayBusy
from gateway.service.fair_queue import FairQueue
from gateway.telemetry.admission_metrics import AdmissionMetrics

_SMOOTHING: Final = 0.1
_HEARD: Final = 0.9
"""Of what a client waits, the part that is this gateway's: the rest is on the way."""
_MOST_RETRY_SECONDS: Final = 60
QUEUE_FULL: Final = "queue_full"
TOO_LATE: Final = "too_late"
TIMED_OUT: Final = "timed_out"
Rooms = tuple[DeploymentRoom, ...]


class WaitingRequest:
    """One that waits; `turn` is resolved with its room (None: at no deployment), or its refusal."""

    __slots__ = ("key", "priority", "rooms", "turn")

    def __init__(self, key: str, priority: int, rooms: Rooms) -> None:
        self.key = key
        self.priority = priority
        self.rooms = rooms
        self.turn: asyncio.Future[DeploymentRoom | None] = (
            asyncio.get_running_loop().create_future()
        )


class AdmissionControl:
    """Admits the requests of one process, which is one of `workers`."""

    def __init__(
        self,
        limits: LimitsConfig,
        metrics: AdmissionMetrics,
        *,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._workers = workers
        self._clock = clock
        self._running: dict[RequestCancellation, float] = {}
        self._promised = 0
        self._queues: dict[Rooms, FairQueue[WaitingRequest]] = {}
        self._answers = AnswerTimes()
        self.change_limits(limits)

    def change_limits(self, limits: LimitsConfig) -> None:
        """Go by other limits from now on."""
        self._limits = limits
        most = limits.max_running
        self._most = math.inf if most is None else share_limit(most, self._workers)
        self._most_waiting = share_limit(limits.max_queued, self._workers)
        self._metrics.limit.set(0 if most is None else self._most)
        self._serve_waiting()

    @property
    def running(self) -> int:
        """Requests being served now."""
        return len(self._running) + self._promised

    @property
    def waiting(self) -> int:
        """Requests that wait now."""
        return sum(map(len, self._queues.values()))

    async def enter(
        self,
        lifeline: RequestCancellation,
        key: str = "",
        priority: int = 0,
        read_seconds: float = math.inf,
    ) -> None:
        """Begin to serve a request once it is its turn. Raises GatewayBusy."""
        if self.running >= self._most or self._queues.get(()):
            await self._wait_turn((), key, priority, read_seconds)
            self._promised -= 1
        self._running[lifeline] = self._clock()

    async def wait_for_room(
        self,
        lifeline: RequestCancellation,
        rooms: Rooms,
        key: str = "",
        priority: int = 0,
        read_seconds: float = math.inf,
    ) -> None:
        """Wait until one of these deployments has room; the caller goes there without waiting.

        Raises GatewayBusy.
        """
        self.leave(lifeline, answered=False)
        room = await self._wait_turn(rooms, key, priority, read_seconds)
        self._promised -= 1
        if room is not None:
            room.promised -= 1
        self._running[lifeline] = self._clock()

    def leave(self, lifeline: RequestCancellation, *, answered: bool = True) -> None:
        """Note that a request is over, or serves nobody any more; one that never began may too."""
        began = self._running.pop(lifeline, None)
        if began is None:
            return
        if answered:
            self._answers.add_answer(self._clock() - began)
        self._serve_waiting()

    def watch_rooms(self, rooms: Sequence[DeploymentRoom]) -> None:
        """Let who waits for a deployment be served when it has room; these are all there are.

        Who waits for one that is no more looks again.
        """
        for room in rooms:
            room.on_free = self._serve_waiting
        for waited_for in tuple(self._queues):
            if not set(waited_for) <= set(rooms):
                queue = self._queues.pop(waited_for)
                while (waiter := queue.pop_next()) is not None:
                    self._promised += 1
                    waiter.turn.set_result(None)
        self._serve_waiting()

    def publish_metrics(self) -> None:
        """Set the gauges to what is true now."""
        self._metrics.running.set(len(self._running))
        self._metrics.waiting.set(self.waiting)

    async def _wait_turn(
        self, rooms: Rooms, key: str, priority: int, read_seconds: float
    ) -> DeploymentRoom | None:
        """Wait for a place, which is promised then. Raises GatewayBusy."""
        queue = self._queues.get(rooms)
        before = 0 if queue is None else queue.count_before(key, priority)
        in_time = max(0.0, _HEARD * read_seconds - self._answers.most_seconds)
        seconds = min(self._limits.max_queue_seconds, in_time)
        expected = self._expect_wait(before, rooms)
        if expected > seconds:
            raise self._refuse(TOO_LATE, expected)
        self._make_space(key, priority, expected)
        waiter = WaitingRequest(key, priority, rooms)
        self._queues.setdefault(rooms, FairQueue()).add(waiter, key, priority)
        began = self._clock()
        try:
            # What is free may be so without anybody leaving: a limit was raised.
            self._serve_waiting()
            async with asyncio.timeout(seconds):
                room = await waiter.turn
        except TimeoutError:
            self._take_back(waiter)
            raise self._refuse(TIMED_OUT, max(expected, 1.0)) from None
        except BaseException:
            self._take_back(waiter)
            raise
        self._metrics.wait_seconds.observe(self._clock() - began)
        return room

    def _make_space(self, key: str, priority: int, expected: float) -> None:
        """See that the queue has space for one more. Raises GatewayBusy."""
        if self.waiting < self._most_waiting:
            return
        for queue in self._queues.values():
            evicted = queue.evict_for(key, priority)
            if evicted is not None:
                evicted.turn.set_exception(self._refuse(QUEUE_FULL, expected))
                self._forget_empty(evicted.rooms)
                return
        raise self._refuse(QUEUE_FULL, expected)

    def _expect_wait(self, before: int, rooms: Rooms) -> float:
        """Return the seconds until it is the turn of one that has so many before it."""
        places = min(self._most, sum(room.most for room in rooms) if rooms else math.inf)
        return before * self._answers.mean_seconds / max(1.0, places)

    def _refuse(self, reason: str, seconds: float) -> GatewayBusy:
        self._metrics.count_refusal(reason)
        wait = min(_MOST_RETRY_SECONDS, max(1, math.ceil(seconds)))
        return GatewayBusy(
            f"the gateway serves as many requests as it may and {self.waiting} wait",
            retry_after_seconds=wait,
        )

    def _serve_waiting(self) -> None:
        """Give what is free to whose turn it is."""
        if not self._queues:
            return
        for rooms in tuple(self._queues):
            queue = self._queues[rooms]
            while queue and self.running < self._most:
                free = next((room for room in rooms if not room.is_full), None)
                if rooms and free is None:
                    break
                waiter = queue.pop_next()
                if waiter is None or waiter.turn.done():
                    continue
                self._promised += 1
                if free is not None:
                    free.promised += 1
                waiter.turn.set_result(free)
            if queue:
                # The other kinds of waiters come first next time.
                self._queues[rooms] = self._queues.pop(rooms)
            else:
                del self._queues[rooms]

    def _take_back(self, waiter: WaitingRequest) -> None:
        """Forget one that waits no more, and give what it was promised to the next."""
        queue = self._queues.get(waiter.rooms)
        if queue is not None and queue.remove(waiter, waiter.key, waiter.priority):
            self._forget_empty(waiter.rooms)
            return
        turn = waiter.turn
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._promised -= 1
            if (room := turn.result()) is not None:
                room.promised -= 1
            self._serve_waiting()

    def _forget_empty(self, rooms: Rooms) -> None:
        if not self._queues[rooms]:
            del self._queues[rooms]


class AnswerTimes:
    """How long answers take: mean and mean deviation, both smoothed (Jacobson, SIGCOMM 1988)."""

    __slots__ = ("_deviation_seconds", "mean_seconds")

    def __init__(self) -> None:
        self.mean_seconds = 0.0
        self._deviation_seconds = 0.0

    @property
    def most_seconds(self) -> float:
        """What few answers take longer than; 0 before the first."""
        return self.mean_seconds + 4.0 * self._deviation_seconds

    def add_answer(self, seconds: float) -> None:
        """Take one answer's time."""
        if not self.mean_seconds:
            self.mean_seconds = seconds
            return
        off = seconds - self.mean_seconds
        self.mean_seconds += _SMOOTHING * off
        self._deviation_seconds += _SMOOTHING * (abs(off) - self._deviation_seconds)


def share_limit(most: int, workers: int) -> int:
    """Return one worker's part of a limit of all of them."""
    return -(-most // workers)
