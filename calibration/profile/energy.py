"""Joules of one request: begin a window, send, end the window, get a Measurement.

    Meter
     +- NoMeter          nothing is known; joules are missing, never 0
     +- SimulatorMeter   the truth that the simulator's answers carry
     +- NvmlMeter        this machine's GPUs, by NVML's energy counter

NVML's counter moves only every 20 to 100 ms. A window of a request alone therefore begins right
at a tick, and the counter's value at its end is interpolated between two ticks, so short requests
are not quantised. Under load windows overlap; each request gets the share of its window's joules
that its new tokens are of all those generated meanwhile.
"""

import asyncio
import importlib
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol

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
    """Joules of one request (None if not measured) and how they were had (see observations)."""

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
        self, window: EnergyWindow, reply: TimedResponse, share: float
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
        self, window: EnergyWindow, reply: TimedResponse, share: float
    ) -> EnergyMeasurement:  # noqa: ARG002
        """Return a measurement that is missing."""
        return EnergyMeasurement()

    def close(self) -> None:
        """Hold nothing."""


class SimulatorMeter(NoMeter):
    """Takes each answer's own joules."""

    hardware = "simulated"

    async def end_window(
        self, window: EnergyWindow, reply: TimedResponse, share: float
    ) -> EnergyMeasurement:  # noqa: ARG002
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


class NvmlMeter:
    """Reads the energy counters of GPUs in a thread of its own.

    `read_millijoules` returns their sum. Construct it with `nvml_meter`.
    """

    def __init__(self, read_millijoules: Callable[[], int], hardware: str) -> None:
        self._read = read_millijoules
        self.hardware = hardware
        self._ticks = CounterTicks()
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._sample_counter, name="nvml", daemon=True)
        self._thread.start()

    def _sample_counter(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                joules = self._read() / 1000.0
            except Exception as error:  # noqa: BLE001 - reported by the next window
                self._failure = error
                return
            self._ticks.add_reading(time.perf_counter(), joules)

    async def begin_window(self, *, alone: bool) -> EnergyWindow:
        """Wait for a tick if the request is alone, else begin at once. Raises MeterError."""
        began = time.perf_counter()
        if alone:
            await self._wait_for_tick(began)
            began = self._ticks.last_change_seconds
        return EnergyWindow(began, alone)

    async def end_window(
        self, window: EnergyWindow, reply: TimedResponse, share: float
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
                raise MeterError(f"NVML: {self._failure}")
            if time.perf_counter() - when > patience:
                raise MeterError("NVML: the energy counter stands still; use --meter none")
            await asyncio.sleep(_MICRO_WAIT_SECONDS)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=1.0)


def create_nvml_meter(gpus: Sequence[int] = (), library: Any = None) -> NvmlMeter:
    """Return a meter over the GPUs of these numbers (none: all). Raises MeterError.

    `library` is pynvml, imported here unless given.
    """
    if library is None:
        try:
            library = importlib.import_module("pynvml")  # an extra
        except ImportError:
            raise MeterError("NVML needs `pip install 'joulegate[meter]'`") from None
    try:
        library.nvmlInit()
        numbers = gpus or range(library.nvmlDeviceGetCount())
        handles = [library.nvmlDeviceGetHandleByIndex(number) for number in numbers]
        if not handles:
            raise MeterError("NVML shows no GPU")

        def read_total_millijoules() -> int:
            return sum(library.nvmlDeviceGetTotalEnergyConsumption(h) for h in handles)

        read_total_millijoules()
        names = [_decode_name(library.nvmlDeviceGetName(handle)) for handle in handles]
    except library.NVMLError as error:
        raise MeterError(f"NVML: {error}") from None
    counted = {name: names.count(name) for name in names}
    return NvmlMeter(
        read_total_millijoules, " + ".join(f"{n}x {x}" if n > 1 else x for x, n in counted.items())
    )


def _decode_name(name: str | bytes) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
