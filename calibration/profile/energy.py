"""Joules of one request: begin a window, send, end the window, get a Measurement.

    ProfilingMeter
     +- NoMeter          nothing is known; joules are missing, never 0
     +- SimulatorMeter   the truth that the simulator's answers carry
     +- CounterMeter     this machine's GPUs, by the sources of `backends.meter`

NVML's counter moves only every 20 to 100 ms. A window of a request alone therefore begins right
at a tick, and the counter's value at its end is interpolated between two ticks, so short requests
are not quantised. Under load windows overlap; each request gets the share of its window's joules
that its new tokens are of all those generated meanwhile.
"""

import asyncio
import threading
import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

from backends.meter.sources.source import EnergySource, SourceError
from calibration.endpoint.stream import TimedResponse

POLL_SECONDS: Final = 0.005
COARSE_SECONDS: Final = 1.0
_WARM_UP_SECONDS: Final = 1.5
_MOST_TICKS: Final = 100_000
_MICRO_WAIT_SECONDS: Final = 0.002


class MeterError(Exception):
    """Energy cannot be measured as asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class EnergyMeasurement:
    """Joules of one request (None if not measured) and the measurement method."""

    joules: float | None = None
    method: str = ""


@dataclass(frozen=True, slots=True)
class EnergyWindow:
    """An open measurement; times are `time.perf_counter` seconds."""

    began: float
    alone: bool


class ProfilingMeter(Protocol):
    """Where joules come from."""

    @property
    def hardware(self) -> str:
        """What is measured, for the rows; empty if unknown."""

    async def begin_window(self, *, alone: bool) -> EnergyWindow:
        """Call right before sending; `alone` promises that nothing else is in flight."""

    async def end_window(
        self,
        window: EnergyWindow,
        reply: TimedResponse,
        share: float,
    ) -> EnergyMeasurement:
        """Call after the answer; `share` is its part of all tokens generated meanwhile."""

    def close(self) -> None:
        """Free what it holds."""


class NoMeter:
    """Measures nothing."""

    hardware = ""

    async def begin_window(self, *, alone: bool) -> EnergyWindow:
        """Begin nothing."""
        return EnergyWindow(time.perf_counter(), alone)

    async def end_window(
        self,
        window: EnergyWindow,  # noqa: ARG002
        reply: TimedResponse,  # noqa: ARG002
        share: float,  # noqa: ARG002
    ) -> EnergyMeasurement:
        """Return a measurement that is missing."""
        return EnergyMeasurement()

    def close(self) -> None:
        """Hold nothing."""


class SimulatorMeter(NoMeter):
    """Takes each answer's own joules."""

    hardware = "simulated"

    async def end_window(
        self,
        window: EnergyWindow,  # noqa: ARG002
        reply: TimedResponse,
        share: float,  # noqa: ARG002
    ) -> EnergyMeasurement:
        """Return the simulator's truth. Raises MeterError for an answer without one."""
        if reply.simulated is None:
            raise MeterError("--meter simulator: the backend's answers are not simulated ones")
        return EnergyMeasurement(reply.simulated.energy_joules, "simulated")


class CounterTicks:
    """The counter's changes: when it was first seen at which value. PURE."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._joules: list[float] = []

    def add_reading(self, at: float, joules: float) -> None:
        """Note one reading; only changes count."""
        if self._joules and joules == self._joules[-1]:
            return
        if self._joules and joules < self._joules[-1]:  # the driver was loaded anew
            self._times.clear()
            self._joules.clear()
        if len(self._times) >= _MOST_TICKS:
            del self._times[: _MOST_TICKS // 2], self._joules[: _MOST_TICKS // 2]
        self._times.append(at)
        self._joules.append(joules)

    @property
    def last_change_seconds(self) -> float:
        """When the counter was last seen to move; minus infinity if it never was."""
        return self._times[-1] if len(self._times) > 1 else float("-inf")

    @property
    def period_seconds(self) -> float:
        """The longest of the last gaps between two changes; infinity if none was seen."""
        times = self._times[-20:]
        # The first value's age is unknown, so a gap that begins there does not count.
        times = times[1:] if len(times) == len(self._times) else times
        return max((b - a for a, b in pairwise(times)), default=float("inf"))

    def interpolate_joules(self, when: float) -> float | None:
        """Return the joules at a time between two ticks, interpolated; None outside of them."""
        place = bisect_right(self._times, when)
        if place == 0 or (place == len(self._times) and when > self._times[-1]):
            return None
        if place == len(self._times):
            return self._joules[-1]
        t0, t1 = self._times[place - 1 : place + 1]
        e0, e1 = self._joules[place - 1 : place + 1]
        return e0 + (e1 - e0) * (when - t0) / (t1 - t0)


class CounterMeter:
    """Reads the energy counters of a source in a thread of its own and adds them up.

    Raises MeterError where the source does not open.
    """

    def __init__(self, source: EnergySource) -> None:
        self._source = source
        try:
            self._devices = source.open()
        except SourceError as error:
            source.close()
            raise MeterError(str(error)) from None
        counted = Counter(device.name for device in self._devices)
        self.hardware = " + ".join(f"{n}x {x}" if n > 1 else x for x, n in counted.items())
        self._ticks = CounterTicks()
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(
            target=self._sample_counters, name="energy-counters", daemon=True
        )
        self._thread.start()

    def _sample_counters(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                microjoules = sum(map(self._source.read, self._devices))
            except Exception as error:  # noqa: BLE001 - reported by the next window
                self._failure = error
                return
            self._ticks.add_reading(time.perf_counter(), microjoules / 1e6)

    async def begin_window(self, *, alone: bool) -> EnergyWindow:
        """Wait for a tick if the request is alone, else begin at once. Raises MeterError."""
        began = time.perf_counter()
        if alone:
            await self._wait_for_tick(began)
            began = self._ticks.last_change_seconds
        return EnergyWindow(began, alone)

    async def end_window(
        self,
        window: EnergyWindow,
        reply: TimedResponse,
        share: float,
    ) -> EnergyMeasurement:
        """Wait for the first tick after the end. Raises MeterError if the counter stands still."""
        await self._wait_for_tick(reply.ended)
        first, last = (
            self._ticks.interpolate_joules(window.began),
            self._ticks.interpolate_joules(reply.ended),
        )
        if first is None or last is None:
            return EnergyMeasurement()
        spent = last - first
        if self._ticks.period_seconds > COARSE_SECONDS:
            return EnergyMeasurement(spent * share, "coarse")
        if window.alone:
            return EnergyMeasurement(spent, "exclusive")
        return EnergyMeasurement(spent * share, "apportioned")

    async def _wait_for_tick(self, when: float) -> None:
        period = self._ticks.period_seconds
        patience = _WARM_UP_SECONDS if period == float("inf") else 10.0 * period + _WARM_UP_SECONDS
        while self._ticks.last_change_seconds <= when:
            if self._failure is not None:
                raise MeterError(f"the energy counter cannot be read: {self._failure}")
            if time.perf_counter() - when > patience:
                raise MeterError("the energy counter stands still; use --meter none")
            await asyncio.sleep(_MICRO_WAIT_SECONDS)

    def close(self) -> None:
        """End the thread and close the source."""
        self._stop.set()
        self._thread.join(timeout=1.0)
        self._source.close()
