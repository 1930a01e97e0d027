"""NVML's errors in words, against a library that is not there. The real path: test_nvml_stub.py."""

# ruff: noqa: N802 - the methods are named as NVML's functions are

import sys
from types import SimpleNamespace

import pynvml
import pytest

from backends.meter.sources.nvml import NvmlSource
from backends.meter.sources.nvml_session import NvmlSession
from backends.meter.sources.source import SourceError


class Library:
    """pynvml over GPUs that are dicts; `fail` says what fails, with which code."""

    NVMLError = pynvml.NVMLError

    def __init__(self, *gpus, fail=None):
        self.gpus = gpus
        self.fail = fail or {}
        self.open = 0

    def __getattr__(self, name):
        if name.startswith("NVML_"):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def _may_fail(self, name):
        if name in self.fail:
            raise pynvml.NVMLError(self.fail[name])

    def nvmlInit(self):
        self._may_fail("init")
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1
        self._may_fail("shutdown")

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        if index >= len(self.gpus):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        found = [gpu for gpu in self.gpus if gpu["uuid"] == uuid]
        if not found:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return found[0]

    def nvmlDeviceGetUUID(self, gpu):
        return gpu["uuid"]

    def nvmlDeviceGetName(self, gpu):
        return b"NVIDIA Test" if gpu.get("bytes") else "NVIDIA Test"

    def nvmlDeviceGetMigMode(self, gpu):
        self._may_fail("mig")
        return gpu.get("mig", 0), 0

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):
        self._may_fail("energy")
        return gpu["millijoules"]

    def nvmlDeviceGetFieldValues(self, gpu, fields):
        self._may_fail("fields")
        assert fields == [pynvml.NVML_FI_DEV_POWER_INSTANT]
        result = self.fail.get("instant", 0)
        return [SimpleNamespace(nvmlReturn=result, value=SimpleNamespace(uiVal=gpu["instant"]))]

    def nvmlDeviceGetPowerUsage(self, gpu):
        self._may_fail("average")
        return gpu["average"]


def gpu(number=0, **fields):
    return {
        "uuid": f"GPU-{number}",
        "millijoules": 7,
        "instant": 200_000,
        "average": 100_000,
    } | fields


def opened(*gpus, devices=(), fail=None, times=(0,)):
    ticks = iter(times)
    library = Library(*gpus, fail=fail)
    source = NvmlSource(devices, session=NvmlSession(library), clock_us=lambda: next(ticks))
    return source, library, source.open()


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(SourceError, match=r"pip install '\S*\[meter\]'"):
        NvmlSource(session=NvmlSession()).open()


def test_all_gpus_unless_told():
    _, _, devices = opened(gpu(0), gpu(1, bytes=True))
    assert [(d.id, d.name, d.wraps_at_microjoules) for d in devices] == [
        ("GPU-0", "NVIDIA Test", None),
        ("GPU-1", "NVIDIA Test", None),
    ]


def test_by_number_or_uuid_and_none_twice():
    _, _, devices = opened(gpu(0), gpu(1), gpu(2), devices=["2", "GPU-1", "GPU-2"])
    assert [d.id for d in devices] == ["GPU-2", "GPU-1"]


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ({"init": pynvml.NVML_ERROR_LIBRARY_NOT_FOUND}, "install NVIDIA's driver"),
        ({"init": pynvml.NVML_ERROR_DRIVER_NOT_LOADED}, "modprobe nvidia"),
        ({"init": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}, "reboot"),
        ({"init": pynvml.NVML_ERROR_NO_PERMISSION}, "who may open /dev/nvidia"),
        ({"energy": pynvml.NVML_ERROR_NO_PERMISSION}, r"\(GPU-0\): Insufficient Perm.*/dev/nvidia"),
        ({"energy": pynvml.NVML_ERROR_GPU_IS_LOST}, "looked for again"),
        ({"energy": pynvml.NVML_ERROR_RESET_REQUIRED}, "--gpu-reset"),
        ({"energy": pynvml.NVML_ERROR_UNKNOWN}, r"NVIDIA Test \(GPU-0\): Unknown Error$"),
        (
            dict.fromkeys(("energy", "instant", "average"), pynvml.NVML_ERROR_NOT_SUPPORTED),
            "neither its energy nor its power; it cannot be metered",
        ),
    ],
)
def test_failures_say_what_to_do_and_leave_nothing_open(fail, message):
    library = Library(gpu(), fail=fail)
    source = NvmlSource(session=NvmlSession(library))
    with pytest.raises(SourceError, match=message):
        source.open()
    assert library.open == 0
    library.fail = {}
    assert len(source.open()) == 1


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (["7"], r"GPU 7: Invalid Argument; `nvidia-smi -L`"),
        (["GPU-x"], r"^GPU-x: Not Found; `nvidia-smi -L`"),
        (["MIG-1"], "MIG-1 is a MIG instance; .* whole GPUs only"),
        (["²"], "Not Found; `nvidia-smi -L`"),
    ],
)
def test_devices_that_are_not_there(devices, message):
    with pytest.raises(SourceError, match=message):
        opened(gpu(), devices=devices)


def test_no_gpu_at_all():
    with pytest.raises(SourceError, match="shows no GPU"):
        opened()


def test_a_split_gpu_is_said_to_be_whole():
    source, _, _ = opened(gpu(mig=1))
    assert "MIG" in source.warnings[0]
    assert "whole GPU" in source.warnings[0]


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_NOT_SUPPORTED])
def test_a_split_gpu_that_does_not_tell(code):
    fail = dict.fromkeys(("energy", "instant", "average"), code)
    with pytest.raises(SourceError, match=r"MIG is on, .* run the meter where it sees the whole"):
        opened(gpu(mig=1), fail=fail)


def test_an_old_gpu_without_mig_mode():
    source, _, _ = opened(gpu(), fail={"mig": pynvml.NVML_ERROR_NOT_SUPPORTED})
    assert source.warnings == ()


def test_the_counter_is_read_in_microjoules():
    source, _, (device,) = opened(gpu(millijoules=123))
    assert source.read(device) == 123_000
    assert source.kind == "nvml"


@pytest.mark.parametrize(
    ("fail", "watts"),
    [
        ({}, 200),
        ({"instant": pynvml.NVML_ERROR_NOT_SUPPORTED}, 100),
        ({"fields": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}, 100),
    ],
    ids=["instant", "no such field", "no such function"],
)
def test_power_is_summed_where_there_is_no_counter(fail, watts, caplog):
    fail = fail | {"energy": pynvml.NVML_ERROR_NOT_SUPPORTED}
    source, _, (device,) = opened(gpu(), fail=fail, times=(0, 1_000_000))
    assert source.kind == "nvml-power"
    assert source.warnings == (
        "NVIDIA Test (GPU-0) has no energy counter: its power is summed up instead",
    )
    first = source.read(device)
    assert source.read(device) - first == watts * 1_000_000
    assert caplog.messages == list(source.warnings)


def test_power_of_a_hole_is_not_made_up():
    no_counter = {"energy": pynvml.NVML_ERROR_NOT_SUPPORTED}
    seconds = (second * 1_000_000 for second in (0, 1, 100, 101))
    source, library, (device,) = opened(gpu(), fail=no_counter, times=seconds)
    first = source.read(device)
    source.read(device)
    library.fail = {"energy": pynvml.NVML_ERROR_GPU_IS_LOST}
    with pytest.raises(SourceError, match="GPU is lost"):
        source.open()
    library.fail = no_counter
    source.open()
    source.read(device)
    assert source.read(device) - first == 2 * 200_000_000


def test_power_that_is_lost_is_an_error_only_where_it_is_needed():
    broken = {"fields": pynvml.NVML_ERROR_UNKNOWN}
    source, library, (device,) = opened(gpu(), times=(0, 1, 2))
    library.fail = broken
    assert source.read(device) == 7000
    assert source.checks == {"GPU-0": None}
    fail = {"energy": pynvml.NVML_ERROR_NOT_SUPPORTED}
    source, library, (device,) = opened(gpu(), fail=fail)
    library.fail = fail | broken
    with pytest.raises(SourceError, match="Unknown Error"):
        source.read(device)
    library.fail = dict.fromkeys(("energy", "instant", "average"), 3)
    source._clock_us = lambda: 1
    with pytest.raises(SourceError, match="no longer tells its power"):
        source.read(device)


def test_a_counter_that_stands_still_under_power_is_replaced(caplog):
    times = range(0, 12_000_000, 50_000)
    source, _, (device,) = opened(gpu(), times=times)
    values = [source.read(device) for _ in times]
    assert source.kind == "nvml-power"
    assert source.checks == {"GPU-0": 0.0}
    assert "off by 0.00x" in source.warnings[0]
    assert caplog.messages == list(source.warnings)
    assert values[-1] - values[0] == 200 * 1_900_000


def test_after_an_error_it_opens_again():
    source, library, (device,) = opened(gpu(), times=(0, 1, 2))
    library.fail = {"energy": pynvml.NVML_ERROR_GPU_IS_LOST}
    with pytest.raises(SourceError, match="GPU is lost"):
        source.read(device)
    library.fail = {"shutdown": pynvml.NVML_ERROR_UNINITIALIZED}
    assert [d.id for d in source.open()] == ["GPU-0"]
    assert source.read(device) == 7000
    assert library.open == 1


def test_numbers_that_shift_when_a_gpu_is_lost_do_not_take_another_for_it():
    source, library, _ = opened(gpu(0), gpu(1), devices=["0"])
    library.gpus = library.gpus[1:]
    with pytest.raises(SourceError, match=r"^GPU-0: Not Found"):
        source.open()
    library.gpus = gpu(1), gpu(0)
    assert [d.id for d in source.open()] == ["GPU-0"]


def test_sources_share_one_hold_on_the_library():
    library = Library(gpu(0), gpu(1))
    session = NvmlSession(library)
    one, two = (NvmlSource([n], session=session, clock_us=lambda: 0) for n in "01")
    (device,) = two.open()
    one.open()
    assert library.open == 1
    one.close()
    assert two.read(device) == 7000
    two.close()
    assert library.open == 0


def test_closed_it_reads_nothing():
    source, library, (device,) = opened(gpu())
    source.close()
    source.close()
    assert library.open == 0
    with pytest.raises(SourceError, match="not open"):
        source.read(device)
