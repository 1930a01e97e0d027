"""The real ctypes path: pynvml loads a libnvidia-ml.so.1 that plays a script (stub_nvml.c).

A process of its own reads it, since pynvml loads the library once. That process also moves the
script's clock, so hours pass in a moment and nothing depends on luck; but the last tests run
`joulegate meter` itself, by the real clock, and change the script as they see it react.
"""

import json
import time

import aiohttp
import pytest

from tests.integration.harness import total, until
from tests.integration.nvml_script import SECOND
from tests.integration.process import joulegate

LOST, NO_PERMISSION, NOT_SUPPORTED, DRIVER_NOT_LOADED = 15, 4, 3, 9


def trace(offset=0, scale=1):
    """Ten minutes of bursts and pauses."""
    watts = [70, 310, 650, 90, 420, 700, 130, 70, 555, 0]
    return [(10 + offset + 6 * n, scale * watts[n % 10]) for n in range(100)] + [(610 + offset, 0)]


def test_two_gpus_each_their_own(script):
    script.gpu("GPU-a")
    script.gpu("GPU-b", tick_us=20_000, start_mj=77_000_000)
    wanted = {"GPU-a": script.power(0, *trace()), "GPU-b": script.power(1, *trace(3, 0.5))}
    found = script.read(5, 620)
    assert found["opened"] == [[["GPU-a", "NVIDIA_Stub"], ["GPU-b", "NVIDIA_Stub"]]]
    assert script.joules(found) == pytest.approx(wanted, rel=0.0001)
    assert found["checks"] == pytest.approx({"GPU-a": 1, "GPU-b": 1}, abs=0.05)
    assert found["kinds"] == ["nvml"]
    assert found["errors"] == []


def test_the_one_that_is_asked_for_by_uuid(script):
    script.gpu("GPU-a")
    script.gpu("GPU-b")
    script.power(0, *trace())
    wanted = script.power(1, *trace(3, 0.5))
    assert script.joules(script.read(5, 620, ["GPU-b"])) == pytest.approx({"GPU-b": wanted})


@pytest.mark.parametrize("bits", [32, 33])
def test_across_a_wrap(script, bits):
    """A counter of 32 bits wraps unseen; one that goes on past it is no wrap."""
    script.gpu("GPU-a", start_mj=2**32 - 90_000_000, wrap_mj=2**bits)
    wanted = script.power(0, *trace())
    assert wanted > 90_000
    assert script.joules(script.read(5, 620)) == pytest.approx({"GPU-a": wanted}, rel=0.0001)


def test_lost_and_found_again(script):
    """It needs a new nvmlInit, and its counter begins again at 0; the other one is unharmed."""
    script.gpu("GPU-a", start_mj=50_000_000)
    script.gpu("GPU-b")
    before = script.power(0, (10, 300), (100, 0))
    script.fail(0, 110, LOST)
    script.say("reset", 0, 120 * SECOND)
    script.fail(0, 130, 0)
    after = script.power(0, (140, 500), (200, 0))
    other = script.power(1, (10, 200), (100, 0)) + script.power(1, (140, 200), (200, 0))
    found = script.read(5, 210)
    assert script.joules(found) == pytest.approx(
        {"GPU-a": before + after, "GPU-b": other}, rel=0.01
    )
    assert len(found["opened"]) == 2
    assert [error.split(";")[0] for error in found["errors"]] == [
        "NVIDIA_Stub (GPU-a): GPU is lost",
        "GPU-a: GPU is lost",
    ]


def test_a_gpu_that_is_lost_and_found_costs_other_ledgers_nothing(script):
    """The library is initialised anew while the other ledger's source goes on reading."""
    script.gpu("GPU-a")
    script.gpu("GPU-b")
    before = script.power(0, (10, 300), (100, 0))
    script.fail(0, 110, LOST)
    script.fail(0, 130, 0)
    after = script.power(0, (140, 500), (200, 0))
    other = script.power(1, *trace())
    found = script.read(5, 620, ["GPU-a"], ["1"])
    assert script.joules(found) == pytest.approx(
        {"GPU-a": before + after, "GPU-b": other}, rel=0.0001
    )
    assert [devices[0][0] for devices in found["opened"]] == ["GPU-a", "GPU-b", "GPU-a"]
    assert all("GPU-a" in error for error in found["errors"])


def test_a_driver_that_is_reset_under_it(script):
    script.gpu("GPU-a", start_mj=9_000_000)
    before = script.power(0, (10, 300), (100, 0))
    script.say("reset", 0, 110 * SECOND)
    after = script.power(0, (120, 300), (200, 0))
    assert script.joules(script.read(5, 210)) == pytest.approx({"GPU-a": before + after}, rel=0.01)


def test_without_permission_until_it_is_given(script):
    script.gpu("GPU-a")
    script.fail(0, 0, NO_PERMISSION, "energy")
    script.fail(0, 60, 0, "energy")
    wanted = script.power(0, *trace(100))
    found = script.read(5, 720)
    assert len(found["errors"]) == 1
    assert "Insufficient Permissions; run as a user who may open /dev/nvidia*" in found["errors"][0]
    assert script.joules(found) == pytest.approx({"GPU-a": wanted}, rel=0.01)


def test_without_a_driver_until_it_is_loaded(script):
    script.gpu("GPU-a")
    script.fail(-1, 0, DRIVER_NOT_LOADED)
    script.fail(-1, 60, 0)
    wanted = script.power(0, *trace(100))
    found = script.read(5, 720)
    assert found["errors"] == [
        "NVML: Driver Not Loaded; load NVIDIA's driver (modprobe nvidia)",
    ]
    assert script.joules(found) == pytest.approx({"GPU-a": wanted}, rel=0.01)


@pytest.mark.parametrize("instant", [True, False])
def test_power_is_summed_up_without_a_counter(script, instant):
    script.gpu("GPU-a")
    script.fail(0, 0, NOT_SUPPORTED, "energy")
    if not instant:
        script.fail(0, 0, NOT_SUPPORTED, "instant")
    wanted = script.power(0, *trace())
    found = script.read(5, 620)
    assert script.joules(found) == pytest.approx({"GPU-a": wanted}, rel=0.01)
    assert found["kinds"] == ["nvml-power"]
    assert "has no energy counter" in found["warnings"][0]


@pytest.mark.parametrize("permille", [0, 300, 1800])
def test_a_counter_that_is_wrong_is_found_out(script, permille):
    """Over a long run what it said in the first seconds no longer matters."""
    script.gpu("GPU-a", permille=permille)
    wanted = script.power(0, (4, 300), (1800, 0))
    found = script.read(5, 1801)
    assert script.joules(found) == pytest.approx({"GPU-a": wanted}, rel=0.01)
    assert found["checks"]["GPU-a"] == pytest.approx(permille / 1000, abs=0.05)
    assert found["kinds"] == ["nvml", "nvml-power"]
    assert "off by" in found["warnings"][0]


def test_a_split_gpu_is_counted_whole_and_says_so(script):
    script.gpu("GPU-a", mig=1)
    wanted = script.power(0, *trace())
    found = script.read(5, 620)
    assert script.joules(found) == pytest.approx({"GPU-a": wanted}, rel=0.01)
    assert "MIG" in found["warnings"][0]


class Meter:
    """A `joulegate meter` that listens."""

    def __init__(self, url):
        self.url = url

    async def get(self, path):
        async with aiohttp.ClientSession() as http, http.get(self.url + path) as response:
            return response.status, await response.text()

    async def ledger(self):
        """The only ledger's health."""
        _, body = await self.get("/health")
        (ledger,) = json.loads(body)["ledgers"].values()
        return ledger

    async def counting(self):
        return (await self.ledger())["counting"]

    async def failing(self):
        ledger = await self.ledger()
        return not ledger["counting"] and ledger["last_error"]

    async def joules(self):
        _, page = await self.get("/metrics")
        name = "joulegate_meter_energy_joules_total"
        return {id_: total(page, name, device=id_) for id_ in ("GPU-a", "GPU-b")}


async def burst(script, meter, already, watts, within=0.01):
    """Two GPUs work for a second and then draw nothing; returns what must have been measured."""
    began = time.monotonic() + 0.2
    joules = [
        script.power(gpu, (began, power), (began + 0.5, power / 2), (began + 1, 0))
        for gpu, power in enumerate(watts)
    ]
    wanted = dict(zip(already, map(sum, zip(already.values(), joules, strict=True)), strict=True))

    async def measured():
        found = await meter.joules()
        return all(found[id_] > (1 - within) * joules for id_, joules in wanted.items())

    await until(measured, f"{wanted}", seconds=30)
    return wanted


async def test_the_meter_itself_measures_the_script(script):
    """Refused at first; then a burst with a wrap in it; then a GPU lost, found, and a burst."""
    script.gpu("GPU-a", tick_us=50_000, start_mj=2**32 - 100_000, wrap_mj=2**32)
    script.gpu("GPU-b", tick_us=20_000)
    script.fail(0, 0, NO_PERMISSION, "energy")
    arguments = ("meter", "--source", "nvml", "--port", 0)
    async with joulegate(*arguments, env=script.env) as process:
        meter = Meter((await process.says(r"metering on (http://\S+)"))[1])
        assert "Insufficient Permissions" in await until(meter.failing)
        assert (await meter.get("/health"))[0] == 503
        script.fail(0, 0, 0, "energy")
        await until(meter.counting)

        joules = await burst(script, meter, {"GPU-a": 0, "GPU-b": 0}, (300, 500))

        script.fail(0, time.monotonic(), LOST)
        assert "GPU is lost" in await until(meter.failing)
        script.say("reset", 0, time.monotonic_ns() // 1000)
        script.fail(0, time.monotonic(), 0)
        await until(meter.counting, seconds=30)
        assert [device["id"] for device in (await meter.ledger())["devices"]] == ["GPU-a", "GPU-b"]

        joules = await burst(script, meter, joules, (700, 100))
        assert await meter.joules() == pytest.approx(joules, rel=0.01)
        _, page = await meter.get("/metrics")
        assert total(page, "joulegate_meter_source_info", device="GPU-a", source="nvml") == 1
        parts = ("attributed_joules_total", "unsettled_joules")
        assert sum(total(page, f"joulegate_meter_{part}") for part in parts) == pytest.approx(
            sum(joules.values()), rel=0.01
        )


async def test_the_meter_sums_power_where_there_is_no_counter(script):
    script.gpu("GPU-a")
    script.gpu("GPU-b")
    for gpu in (0, 1):
        script.fail(gpu, 0, NOT_SUPPORTED, "energy")
    async with joulegate("meter", "--port", 0, env=script.env) as process:
        meter = Meter((await process.says(r"metering on (http://\S+)"))[1])
        await until(meter.counting)
        # Power is looked at every 50 ms: the burst's edges are seen late or early by half of that.
        nothing = {"GPU-a": 0, "GPU-b": 0}
        joules = await burst(script, meter, nothing, (300, 500), within=0.15)
        assert await meter.joules() == pytest.approx(joules, rel=0.15)
        ledger = await meter.ledger()
        assert ledger["source"] == "nvml-power"
        assert "has no energy counter" in ledger["warnings"][0]
