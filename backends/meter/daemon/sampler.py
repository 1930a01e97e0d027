"""Reads a ledger's counters in a thread and emits an event for each interval between changes.

Rules:
- To find their update periods, counters are read every 5 ms for 2 s; a coarse source is spared
  that and is read once a second.
- Then they are read `hz` times a second. A counter that is updated less often than that is looked
  at when its next update is due and every 2 ms until it has come, so that an interval's end is
  known to 2 ms at no greater cost.
- An interval closes when every counter has moved since the last one did, or after a second (after
  two periods of a slower counter): a counter that stands still must not hold the others up.
- A counter that was reset leaves a hole, and so does one that cannot be read, until it can; tries
  are 1 s apart, doubling to 30 s.

Events wait in a queue until `take_events` is called: nothing is woken twenty times a second. If it
is not called for very long, the queue is dropped and the counter starts anew from there on.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from backends.meter.clock import clock_us
from backends.meter.daemon.counter import MICRO, DeviceCounter, find_slowest_period
from backends.meter.sources.source import EnergyDevice, EnergySource, SourceError

_log = logging.getLogger("joulegate.meter")

_FIND_EVERY_SECONDS = 0.005
_FIND_FOR_US = 2_000_000
_COARSE_EVERY_SECONDS = 1.0
_CLOSE_AFTER_US = 1_000_000
_CLOSE_COARSE_AFTER_US = 60_000_000
_STILL_PERIODS = 10
_MOST_NEWS = 10_000


@dataclass(frozen=True, slots=True)
class CounterEvent:
    """A counter that is known from `at_us` on, an interval that ended there, or a loss there."""

    kind: Literal["start", "advance", "lost"]
    at_us: int
    microjoules: dict[str, int] = field(default_factory=dict)
    """By device; for an interval."""


class CounterSampler:
    """One ledger's source and the thread that reads it."""

    def __init__(
        self,
        name: str,
        source: EnergySource,
        *,
        hz: float = 20.0,
        back_off_seconds: tuple[float, float] = (1.0, 30.0),
        clock: Callable[[], int] = clock_us,
    ) -> None:
        self.name = name
        self.source = source
        self.counters: tuple[DeviceCounter, ...] = ()
        """Empty while there is none."""
        self.errors: dict[str, int] = {}
        """How often each device (before there is one: the ledger) could not be read."""
        self.last_error: str | None = None
        self._every_seconds = _COARSE_EVERY_SECONDS if source.coarse else 1.0 / hz
        self._back_off_seconds = back_off_seconds
        self._clock = clock
        self._events: deque[CounterEvent] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._read_until_stopped, name=f"meter-{name}", daemon=True
        )
        self._reading_label = name
        self._closed_us = 0
        self._finding_until_us = 0

    def start_thread(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop_thread(self) -> None:
        """Stop reading; returns once the source is closed, or after 5 s if it hangs."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def take_events(self) -> list[CounterEvent]:
        """Return what has happened since the last call, in its order."""
        taken: list[CounterEvent] = []
        with contextlib.suppress(IndexError):  # it is emptied by the other thread when it is full
            for _ in range(len(self._events)):
                taken.append(self._events.popleft())  # noqa: PERF401 - keeps what was taken by then
        return taken

    def _emit_event(self, news: CounterEvent) -> None:
        if len(self._events) >= _MOST_NEWS:
            self._events.clear()
            news = CounterEvent("lost" if news.kind == "lost" else "start", news.at_us)
        self._events.append(news)

    @property
    def period_us(self) -> int | None:
        """The slowest counter's period, once all are known."""
        return find_slowest_period(counter.period_us for counter in self.counters)

    def is_standing_still(self, counter: DeviceCounter) -> bool:
        """Whether a counter has stood for ten of its periods, and for a second."""
        expected_us = max(_STILL_PERIODS * (counter.period_us or 0), MICRO)
        if self.source.coarse and counter.period_us is None:
            return False
        return self._clock() - counter.moved_us > expected_us

    def _read_until_stopped(self) -> None:
        wait, longest = self._back_off_seconds
        back_off = wait
        while not self._stop.is_set():
            try:
                self.open_source()
                back_off = wait
                while not self._stop.is_set():
                    time.sleep(self.next_pause_seconds())  # a wait for the event costs more CPU
                    self.read_counters()
            except SourceError as error:
                self.record_failure(str(error))
            except Exception as error:  # noqa: BLE001 - the next try of a broken driver may go well
                _log.exception("ledger %s: the source broke", self.name)
                self.record_failure(f"{type(error).__name__}: {error}")
            with contextlib.suppress(Exception):
                self.source.close()
            self._stop.wait(back_off)
            back_off = min(2 * back_off, longest)

    def open_source(self) -> None:
        """Find the devices and take their first readings. Raises SourceError."""
        self._reading_label = self.name
        devices = self.source.open()
        if not devices:
            raise SourceError("no device found")
        values = [self._read_device(device) for device in devices]
        at_us = self._clock()
        self.counters = tuple(
            DeviceCounter(device, value, at_us)
            for device, value in zip(devices, values, strict=True)
        )
        self._closed_us = at_us
        self._finding_until_us = 0 if self.source.coarse else at_us + _FIND_FOR_US
        self._emit_event(CounterEvent("start", at_us))
        self.last_error = None
        listed = ", ".join(f"{device.id} ({device.name})" for device in devices)
        _log.info("ledger %s: %s counts %s", self.name, self.source.kind, listed)

    def read_counters(self) -> None:
        """Read every counter once and tell what came of it. Raises SourceError."""
        before_us = self._clock()
        values = [self._read_device(counter.device) for counter in self.counters]
        at_us = (before_us + self._clock()) // 2
        shown = [
            c.record_reading(value, at_us) for c, value in zip(self.counters, values, strict=True)
        ]
        if not all(shown):
            self._restart_counters(values, at_us)
        elif (
            all(c.moved for c in self.counters)
            or at_us - self._closed_us >= self._max_interval_us()
        ):
            self._close_interval(at_us)
        if self._finding_until_us < at_us:
            for counter in self.counters:
                counter.fix_period()

    def record_failure(self, message: str) -> None:
        """Take note that the source cannot be read; what was not told yet is not known."""
        self.errors[self._reading_label] = self.errors.get(self._reading_label, 0) + 1
        if self.counters:
            self._emit_event(CounterEvent("lost", self._closed_us))
            self.counters = ()
        if message != self.last_error:
            _log.warning("ledger %s: %s", self.name, message)
        self.last_error = message

    def _read_device(self, device: EnergyDevice) -> int:
        self._reading_label = device.id
        return self.source.read(device)

    def _close_interval(self, at_us: int) -> None:
        """End the interval here."""
        self._emit_event(
            CounterEvent(
                "advance", at_us, {c.device.id: c.unclosed_microjoules for c in self.counters}
            )
        )
        self._closed_us = at_us
        for counter in self.counters:
            counter.unclosed_microjoules = 0
            counter.moved = False

    def _restart_counters(self, values: list[int], at_us: int) -> None:
        """Start anew from these readings."""
        _log.warning("ledger %s: counter reset", self.name)
        self._emit_event(CounterEvent("lost", self._closed_us))
        for counter, value in zip(self.counters, values, strict=True):
            counter.value, counter.moved_us, counter.unclosed_microjoules = value, at_us, 0
            counter.moved = False
        self._closed_us = at_us
        self._emit_event(CounterEvent("start", at_us))

    def _max_interval_us(self) -> int:
        """How long an interval may wait for a counter that does not move."""
        period_us = self.period_us
        if period_us is None:
            return _CLOSE_COARSE_AFTER_US if self.source.coarse else _CLOSE_AFTER_US
        return max(_CLOSE_AFTER_US, 2 * period_us)

    def next_pause_seconds(self) -> float:
        """How long to wait before the next reading."""
        now_us = self._clock()
        if now_us < self._finding_until_us:
            return _FIND_EVERY_SECONDS
        if self.source.coarse:
            return self._every_seconds
        every_us = round(self._every_seconds * MICRO)
        awaited = [c.next_read_in_us(now_us, every_us) for c in self.counters if not c.moved]
        return min(awaited, default=every_us) / MICRO
