"""Joules: the counter's ticks as plain numbers, and a meter over a source that is pretended."""

import asyncio
import collections
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.meter.sources.source import EnergyDevice, SourceError
from calibration.endpoint.stream import SimulatedRequestCost, TimedResponse
from calibration.profile.energy import (
    CounterMeter,
    CounterTicks,
    EnergyMeasurement,
    MeterError,
    NoMeter,
    SimulatorMeter,
)


def reply(began=0.0, ended=1.0, simulated=None):
    return TimedResponse("r", began, ended, ended - began, None, 10, 5, None, simulated)


@given(
    period=st.floats(0.02, 0.1),
    watts=st.floats(30, 700),
    begin=st.floats(0.2, 3),
    length=st.floats(0.01, 5),
)
def test_a_steady_power_is_read_exactly_between_ticks(period, watts, begin, length):
    ticks = CounterTicks()
    for k in range(200):
        ticks.add_reading(k * period, watts * k * period)
    end = min(begin + length, 190 * period)
    begin = min(begin, end)
    spent = ticks.interpolate_joules(end) - ticks.interpolate_joules(begin)
    assert spent == pytest.approx(watts * (end - begin), abs=1e-6)
    assert ticks.period_seconds == pytest.approx(period)


def test_only_changes_are_ticks_and_outside_of_them_nothing_is_known():
    ticks = CounterTicks()
    assert ticks.interpolate_joules(0.0) is None
    assert ticks.last_change_seconds == float("-inf")
    ticks.add_reading(0.0, 1.0)
    assert ticks.last_change_seconds == float("-inf")  # a first reading is no change
    for at, joules in ((0.01, 1.0), (0.05, 6.0), (0.06, 6.0), (0.1, 11.0)):
        ticks.add_reading(at, joules)
    assert (
        ticks.interpolate_joules(0.0),
        ticks.interpolate_joules(0.05),
        ticks.interpolate_joules(0.1),
    ) == (1.0, 6.0, 11.0)
    assert ticks.interpolate_joules(-0.01) is None
    assert ticks.interpolate_joules(0.11) is None
    # The first value was there before anyone looked, so its gap is no period.
    assert ticks.period_seconds == pytest.approx(0.05)


def test_a_counter_that_falls_starts_anew():
    ticks = CounterTicks()
    for at, joules in ((0.0, 100.0), (1.0, 110.0), (2.0, 1.0), (3.0, 3.0)):
        ticks.add_reading(at, joules)
    assert ticks.interpolate_joules(0.5) is None
    assert ticks.interpolate_joules(2.5) == 2.0


def test_old_ticks_are_forgotten():
    ticks = CounterTicks()
    for k in range(150_000):
        ticks.add_reading(float(k), float(k))
    assert ticks.interpolate_joules(10.0) is None
    assert ticks.interpolate_joules(149_000.5) == 149_000.5


class Gpus:
    """A source of counters at a steady power that move once a period, as NVML's do."""

    kind, coarse = "nvml", False

    def __init__(self, *names, period=0.03, watts=400.0, fails=""):
        self.names, self.period, self.watts = names or ("a card",), period, watts
        self.fails = fails
        self.start = time.perf_counter()
        self.is_open = False

    def open(self):
        self.is_open = True
        if self.fails == "open":
            raise SourceError("NVML: Driver Not Loaded; load NVIDIA's driver")
        return tuple(EnergyDevice(f"GPU-{n}", name) for n, name in enumerate(self.names))

    def read(self, device):
        if self.fails == "read":
            raise SourceError(f"{device.name} ({device.id}): GPU is lost")
        if self.fails == "still":
            return 5
        ticks = int((time.perf_counter() - self.start) / self.period)
        return round(ticks * self.period * self.watts * 1e6)

    def close(self):
        self.is_open = False


@pytest.fixture
def gpu_meter():
    sources, meters = [], []

    def make(source):
        sources.append(source)
        meters.append(CounterMeter(source))
        return meters[-1]

    yield make
    for meter in meters:
        meter.close()
    assert not any(source.is_open for source in sources)
    assert "energy-counters" not in [thread.name for thread in threading.enumerate()]


async def test_a_short_window_is_not_quantised(gpu_meter):
    gpu = Gpus()
    meter = gpu_meter(gpu)
    shares = []
    for _ in range(4):
        window = await meter.begin_window(alone=True)
        began = time.perf_counter()
        await asyncio.sleep(0.05)  # less than two ticks: what is measured must last some time
        ended = time.perf_counter()
        measured = await meter.end_window(window, reply(began, ended), 1.0)
        assert measured.method == "exclusive"
        shares.append(measured.joules / (gpu.watts * (ended - began)))
    # Whole ticks would be off by up to 60%; a busy machine may delay the polls of one window.
    assert min(abs(share - 1.0) for share in shares) < 0.2


async def test_under_load_a_request_gets_its_share(gpu_meter):
    meter = gpu_meter(Gpus())
    await meter.begin_window(alone=True)
    window = await meter.begin_window(alone=False)
    await asyncio.sleep(0.06)
    ended = time.perf_counter()
    whole = await meter.end_window(window, reply(0.0, ended), 1.0)
    quarter = await meter.end_window(window, reply(0.0, ended), 0.25)
    assert (whole.method, quarter.method) == ("apportioned", "apportioned")
    assert quarter.joules == pytest.approx(whole.joules / 4)


async def test_a_slow_source_is_coarse(gpu_meter, monkeypatch):
    monkeypatch.setattr("calibration.profile.energy.COARSE_SECONDS", 0.01)
    meter = gpu_meter(Gpus())
    window = await meter.begin_window(alone=True)
    measured = await meter.end_window(window, reply(0.0, time.perf_counter()), 1.0)
    assert measured.method == "coarse"


async def test_a_counter_that_stands_still_or_fails_is_said(gpu_meter, monkeypatch):
    monkeypatch.setattr("calibration.profile.energy._WARM_UP_SECONDS", 0.05)
    with pytest.raises(MeterError, match="stands still"):
        await gpu_meter(Gpus(fails="still")).begin_window(alone=True)
    with pytest.raises(MeterError, match=r"cannot be read: a card \(GPU-0\): GPU is lost"):
        await gpu_meter(Gpus(fails="read")).begin_window(alone=True)


async def test_the_simulators_truth_is_taken_as_it_is():
    meter = SimulatorMeter()
    window = await meter.begin_window(alone=False)
    truth = SimulatedRequestCost(energy_joules=12.5, seconds=3.0)
    assert await meter.end_window(window, reply(simulated=truth), 0.1) == EnergyMeasurement(
        12.5, "simulated"
    )
    with pytest.raises(MeterError, match="not simulated"):
        await meter.end_window(window, reply(), 1.0)


async def test_without_a_meter_joules_are_missing():
    meter = NoMeter()
    window = await meter.begin_window(alone=True)
    assert await meter.end_window(window, reply(), 1.0) == EnergyMeasurement(None, "")


class CountingGpus(Gpus):
    """Each reading of the n-th counter is 10^n joules more than the one before."""

    def __init__(self, *names):
        super().__init__(*names)
        self.readings = collections.Counter()

    def read(self, device):
        self.readings[device.id] += 1
        return self.readings[device.id] * 10 ** int(device.id[-1]) * 1_000_000


async def test_the_counters_of_all_devices_are_added_up(gpu_meter):
    meter = gpu_meter(CountingGpus("L4", "H200", "L4"))
    assert meter.hardware == "2x L4 + H200"
    first = await meter.begin_window(alone=True)
    second = await meter.begin_window(alone=True)
    measured = await meter.end_window(first, reply(0.0, second.began), 1.0)
    assert measured.joules >= 111
    assert measured.joules % 111 == 0  # both windows begin at a tick: nothing is interpolated


def test_a_source_that_does_not_open_is_said_and_closed(gpu_meter):
    with pytest.raises(MeterError, match=r"^NVML: Driver Not Loaded; load"):
        gpu_meter(Gpus(fails="open"))
