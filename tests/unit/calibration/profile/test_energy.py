"""Joules: the counter's ticks as plain numbers, and NVML through a library that is pretended."""

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.endpoint.stream import SimulatedRequestCost, TimedResponse
from calibration.profile.energy import (
    CounterTicks,
    EnergyMeasurement,
    MeterError,
    NoMeter,
    NvmlMeter,
    SimulatorMeter,
    create_nvml_meter,
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


class Gpu:
    """A counter at a steady power that moves once a period, as NVML's does."""

    def __init__(self, period=0.03, watts=400.0):
        self.period, self.watts = period, watts
        self.start = time.perf_counter()

    def __call__(self):
        ticks = int((time.perf_counter() - self.start) / self.period)
        return round(ticks * self.period * self.watts * 1000)


@pytest.fixture
def gpu_meter():
    meters = []

    def make(*args):
        meters.append(NvmlMeter(*args))
        return meters[-1]

    yield make
    for meter in meters:
        meter.close()
    assert "nvml" not in [thread.name for thread in threading.enumerate()]


async def test_a_short_window_is_not_quantised(gpu_meter):
    gpu = Gpu()
    meter = gpu_meter(gpu, "a card")
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
    meter = gpu_meter(Gpu(), "a card")
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
    meter = gpu_meter(Gpu(), "a card")
    window = await meter.begin_window(alone=True)
    measured = await meter.end_window(window, reply(0.0, time.perf_counter()), 1.0)
    assert measured.method == "coarse"


async def test_a_counter_that_stands_still_or_fails_is_said(gpu_meter, monkeypatch):
    monkeypatch.setattr("calibration.profile.energy._WARM_UP_SECONDS", 0.05)
    with pytest.raises(MeterError, match="stands still"):
        await gpu_meter(lambda: 5, "a card").begin_window(alone=True)

    def lost():
        raise RuntimeError("GPU is lost")

    with pytest.raises(MeterError, match="GPU is lost"):
        await gpu_meter(lost, "a card").begin_window(alone=True)


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


class Library:
    """As much of pynvml as is used."""

    class NVMLError(Exception):
        pass

    def __init__(self, names=("Tesla", "Tesla"), broken=None):
        self.names, self.broken, self.gpu = names, broken, Gpu()

    def nvmlInit(self):  # noqa: N802
        if self.broken == "init":
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, number):  # noqa: N802
        if number >= len(self.names):
            raise self.NVMLError("Invalid Argument")
        return number

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        if self.broken == "counter":
            raise self.NVMLError("Not Supported")
        return self.gpu() * (handle + 1)

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return self.names[handle].encode() if handle else self.names[handle]


def test_all_gpus_are_added_up_unless_some_are_named():
    with_all, one = (
        create_nvml_meter((), Library()),
        create_nvml_meter((1,), Library(("H200", "L4"))),
    )
    try:
        assert with_all.hardware == "2x Tesla"
        assert one.hardware == "L4"
    finally:
        with_all.close()
        one.close()


@pytest.mark.parametrize(
    ("gpus", "library", "words"),
    [
        ((), Library(broken="init"), "Driver Not Loaded"),
        ((), Library(broken="counter"), "Not Supported"),
        ((5,), Library(), "Invalid Argument"),
        ((), Library(()), "no GPU"),
    ],
)
def test_what_nvml_lacks_is_said(gpus, library, words):
    with pytest.raises(MeterError, match=words):
        create_nvml_meter(gpus, library)
