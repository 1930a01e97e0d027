"""NVIDIA's own library, through `pynvml` of the package nvidia-ml-py (the extra `meter`).

Devices are asked for by number (in NVML's order, that of the PCI bus, whatever
CUDA_VISIBLE_DEVICES says) or by UUID; once found they go by UUID, since numbers shift when one is
lost. NVML knows no energy of a MIG instance, only the whole GPU's. A driver that was reset, or a
GPU that was lost, is a SourceError; `open` then begins anew.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backends.meter.sources.gpu_counter import GpuCounter
from backends.meter.sources.nvml_session import SHARED, Session
from backends.meter.sources.source import Device, SourceError

_log = logging.getLogger("joulegate.meter")

_ADVICE: Final = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": "install NVIDIA's driver; in a container, give it the GPUs with"
    " `utility` among NVIDIA_DRIVER_CAPABILITIES",
    "NVML_ERROR_DRIVER_NOT_LOADED": "load NVIDIA's driver (modprobe nvidia)",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "the driver was updated while loaded: reboot, or restart"
    " the container",
    "NVML_ERROR_NO_PERMISSION": "run as a user who may open /dev/nvidia*, or in a container that"
    " was given the GPUs",
    "NVML_ERROR_NOT_FOUND": "`nvidia-smi -L` lists what there is",
    "NVML_ERROR_INVALID_ARGUMENT": "`nvidia-smi -L` lists what there is",
    "NVML_ERROR_GPU_IS_LOST": "it fell off the bus or is being reset; it is looked for again",
    "NVML_ERROR_RESET_REQUIRED": "run `nvidia-smi --gpu-reset` or reboot; it is looked for again",
    "NVML_ERROR_UNINITIALIZED": "the driver was unloaded or reset; it is opened again",
}
_MIG_ADVICE: Final = (
    "MIG is on, and NVML counts energy for whole GPUs only: run the meter where it sees the whole"
    " GPU (on the host, or in a container with NVIDIA_VISIBLE_DEVICES=all)"
)
_NO_COUNTER: Final = ("NVML_ERROR_NOT_SUPPORTED", "NVML_ERROR_FUNCTION_NOT_FOUND")


@dataclass(slots=True)
class _Gpu:
    device: Device
    handle: Any
    mig: bool
    counter: GpuCounter
    warned: bool = False


def _now_us() -> int:
    return time.monotonic_ns() // 1000


class NvmlSource:
    """GPUs of these numbers or UUIDs (none: all)."""

    coarse = False

    def __init__(
        self,
        devices: Sequence[str] = (),
        *,
        session: Session = SHARED,
        clock_us: Callable[[], int] = _now_us,
    ) -> None:
        self.kind = "nvml"
        """`nvml-power` as soon as power of one of the GPUs is summed up."""
        self._names = tuple(devices)
        self._session = session
        self._clock_us = clock_us
        self._using = False
        self._generation = 0
        self._gpus: dict[str, _Gpu] = {}
        self._counters: dict[str, GpuCounter] = {}

    @property
    def checks(self) -> dict[str, float | None]:
        """By device id: the counter's advance over integrated power's; None: not known."""
        return {id_: gpu.counter.ratio for id_, gpu in self._gpus.items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the figures must know, in sentences."""
        gpus = self._gpus.values()
        return (
            *(f"{_title(g.device)} is split up (MIG): its energy is the whole GPU's, whoever uses"
              " the other instances" for g in gpus if g.mig),
            *(_integrating(g) for g in gpus if g.counter.integrates),
        )  # fmt: skip

    def open(self) -> tuple[Device, ...]:
        """Find the GPUs. Raises SourceError; may be called again after one."""
        with self._session.lock:
            self.close()
            try:
                self._gpus = self._begin()  # at once: other threads look at it
            except SourceError:
                self.close()
                raise
        for warning in self.warnings:
            _log.warning("%s", warning)
        self._name_kind()
        return tuple(gpu.device for gpu in self._gpus.values())

    def read(self, device: Device) -> int:
        """Return the energy in microjoules since some time before. Raises SourceError."""
        gpu = self._gpus.get(device.id)
        if gpu is None:
            raise SourceError(f"NVML: {_title(device)} is not open")
        with self._session.lock:
            try:
                if self._generation != self._session.generation:
                    self._find_again()
                return self._read(gpu)
            except self._library.NVMLError as error:
                raise self._failure(_title(device), error, mig=gpu.mig) from None

    def close(self) -> None:
        """Let go of the library; the last one that does ends it."""
        self._gpus = {}
        with self._session.lock:
            if self._using:
                self._using = False
                self._session.end()

    @property
    def _library(self) -> Any:
        return self._session.library

    def _begin(self) -> dict[str, _Gpu]:
        session = self._session
        session.load()
        try:
            session.begin()
            self._using = True
            try:
                gpus = self._find()
            except SourceError:
                # What was here before may be back, unseen while others hold the library too.
                if not (self._generation and session.shared):
                    raise
                session.restart()
                gpus = self._find()
        except self._library.NVMLError as error:
            raise self._failure("NVML", error) from None
        self._generation = session.generation
        self._names = tuple(gpus)
        return gpus

    def _find(self) -> dict[str, _Gpu]:
        gpus = {}
        for name in self._names or self._all():
            try:
                gpu = self._look_at(self._handle(name))
            except self._library.NVMLError as error:
                what = f"GPU {name}" if name.isdigit() else name
                raise self._failure(what, error) from None
            gpus[gpu.device.id] = gpu  # one that was asked for twice counts once
        return gpus

    def _find_again(self) -> None:
        """Get new handles: another source has restarted the library."""
        for gpu in self._gpus.values():
            gpu.handle = self._library.nvmlDeviceGetHandleByUUID(gpu.device.id)
        self._generation = self._session.generation

    def _all(self) -> list[str]:
        count = self._library.nvmlDeviceGetCount()
        if not count:
            raise SourceError("NVML shows no GPU; in a container, give it the GPUs")
        return [str(number) for number in range(count)]

    def _handle(self, name: str) -> Any:
        """Return the handle of a number or a UUID."""
        if name.startswith("MIG-"):
            raise SourceError(f"NVML: {name} is a MIG instance; {_MIG_ADVICE}, and name the GPU")
        if name.isascii() and name.isdigit():
            return self._library.nvmlDeviceGetHandleByIndex(int(name))
        return self._library.nvmlDeviceGetHandleByUUID(name)

    def _look_at(self, handle: Any) -> _Gpu:
        library = self._library
        device = Device(_text(library.nvmlDeviceGetUUID(handle)), _name(library, handle))
        gpu = _Gpu(
            device, handle, self._is_mig(handle), self._counters.setdefault(device.id, GpuCounter())
        )
        gpu.counter.resume()
        try:
            library.nvmlDeviceGetTotalEnergyConsumption(handle)
        except library.NVMLError as error:
            if not self._is_one_of(error, _NO_COUNTER):
                raise self._failure(_title(device), error, mig=gpu.mig) from None
            gpu.counter.integrate()
        if gpu.counter.integrates and self._milliwatts(handle) is None:
            advice = f"; {_MIG_ADVICE}" if gpu.mig else "; it cannot be metered by NVML"
            raise SourceError(f"{_title(device)} tells neither its energy nor its power{advice}")
        gpu.warned = gpu.counter.integrates
        return gpu

    def _read(self, gpu: _Gpu) -> int:
        counter, at_us = gpu.counter, self._clock_us()
        millijoules = milliwatts = None
        if not counter.integrates:
            millijoules = self._library.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)
        if counter.wants_power(at_us):
            try:
                milliwatts = self._milliwatts(gpu.handle)
            except self._library.NVMLError:
                if counter.integrates:  # else it was for a check only
                    raise
            if milliwatts is None and counter.integrates:
                raise SourceError(f"{_title(gpu.device)} no longer tells its power")
        microjoules = counter.take(at_us, millijoules, milliwatts)
        if counter.integrates and not gpu.warned:
            gpu.warned = True
            _log.warning("%s", _integrating(gpu))
            self._name_kind()
        return microjoules

    def _milliwatts(self, handle: Any) -> int | None:
        """Return the power of this instant, else its mean over a second, else None."""
        library = self._library
        try:
            value = library.nvmlDeviceGetFieldValues(handle, [library.NVML_FI_DEV_POWER_INSTANT])[0]
            if value.nvmlReturn == library.NVML_SUCCESS:
                return int(value.value.uiVal)
        except library.NVMLError as error:
            if not self._is_one_of(error, _NO_COUNTER):
                raise
        try:
            return int(library.nvmlDeviceGetPowerUsage(handle))
        except library.NVMLError as error:
            if not self._is_one_of(error, _NO_COUNTER):
                raise
            return None

    def _is_mig(self, handle: Any) -> bool:
        try:
            current, _ = self._library.nvmlDeviceGetMigMode(handle)
        except self._library.NVMLError:  # too old to have it
            return False
        return bool(current == self._library.NVML_DEVICE_MIG_ENABLE)

    def _is_one_of(self, error: Any, names: tuple[str, ...]) -> bool:
        return error.value in [getattr(self._library, name) for name in names]

    def _name_kind(self) -> None:
        summed = any(gpu.counter.integrates for gpu in self._gpus.values())
        self.kind = "nvml-power" if summed else "nvml"

    def _failure(self, what: str, error: Any, *, mig: bool = False) -> SourceError:
        refused = ("NVML_ERROR_NO_PERMISSION", *_NO_COUNTER)
        if mig and self._is_one_of(error, refused):
            return SourceError(f"{what}: {error}; {_MIG_ADVICE}")
        advice = [text for name, text in _ADVICE.items() if self._is_one_of(error, (name,))]
        return SourceError("; ".join((f"{what}: {error}", *advice)))


def _integrating(gpu: _Gpu) -> str:
    ratio = gpu.counter.ratio
    why = "has no energy counter" if ratio is None else f"has a counter off by {ratio:.2f}x"
    return f"{_title(gpu.device)} {why}: its power is summed up instead"


def _title(device: Device) -> str:
    return f"{device.name} ({device.id})"


def _name(library: Any, handle: Any) -> str:
    return _text(library.nvmlDeviceGetName(handle))


def _text(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text
