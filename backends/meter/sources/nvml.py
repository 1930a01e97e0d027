"""NVIDIA's own library, through `pynvml` of the package nvidia-ml-py (the extra `meter`).

Devices are asked for by number (in NVML's order, that of the PCI bus, whatever
CUDA_VISIBLE_DEVICES says) or by UUID; once found they go by UUID, since numbers shift when one is
lost. NVML knows no energy of a MIG instance, only the whole GPU's. A driver that was reset, or a
GPU that was lost, is a SourceError; `open` then begins anew.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backends.meter.clock import clock_us
from backends.meter.sources.gpu_counter import GpuCounter
from backends.meter.sources.nvml_session import SHARED_SESSION, NvmlSession
from backends.meter.sources.source import EnergyDevice, SourceError

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
class _OpenGpu:
    device: EnergyDevice
    handle: Any
    mig: bool
    counter: GpuCounter
    warned: bool = False


class NvmlSource:
    """GPUs of these numbers or UUIDs (none: all)."""

    coarse = False

    def __init__(
        self,
        devices: Sequence[str] = (),
        *,
        session: NvmlSession = SHARED_SESSION,
        clock_us: Callable[[], int] = clock_us,
    ) -> None:
        self.kind = "nvml"
        """`nvml-power` as soon as power of one of the GPUs is summed up."""
        self._names = tuple(devices)
        self._session = session
        self._clock_us = clock_us
        self._using = False
        self._generation = 0
        self._gpus: dict[str, _OpenGpu] = {}
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
            *(
                f"{_format_device(g.device)} is split up (MIG): its energy is the whole GPU's,"
                " whoever uses the other instances"
                for g in gpus
                if g.mig
            ),
            *(_describe_integration(g) for g in gpus if g.counter.integrates),
        )

    def open(self) -> tuple[EnergyDevice, ...]:
        """Find the GPUs. Raises SourceError; may be called again after one."""
        with self._session.lock:
            self.close()
            try:
                self._gpus = self._open_gpus()  # at once: other threads look at it
            except SourceError:
                self.close()
                raise
        for warning in self.warnings:
            _log.warning("%s", warning)
        self._update_kind()
        return tuple(gpu.device for gpu in self._gpus.values())

    def read(self, device: EnergyDevice) -> int:
        """Return the energy in microjoules since some time before. Raises SourceError."""
        gpu = self._gpus.get(device.id)
        if gpu is None:
            raise SourceError(f"NVML: {_format_device(device)} is not open")
        with self._session.lock:
            try:
                if self._generation != self._session.generation:
                    self._refresh_handles()
                return self._read_gpu(gpu)
            except self._nvml_library.NVMLError as error:
                raise self._build_error(_format_device(device), error, mig=gpu.mig) from None

    def close(self) -> None:
        """Let go of the library; the last one that does ends it."""
        self._gpus = {}
        with self._session.lock:
            if self._using:
                self._using = False
                self._session.remove_user()

    @property
    def _nvml_library(self) -> Any:
        return self._session.library

    def _open_gpus(self) -> dict[str, _OpenGpu]:
        session = self._session
        session.load_library()
        try:
            session.add_user()
            self._using = True
            try:
                gpus = self._find_gpus()
            except SourceError:
                # What was here before may be back, unseen while others hold the library too.
                if not (self._generation and session.is_shared):
                    raise
                session.restart_library()
                gpus = self._find_gpus()
        except self._nvml_library.NVMLError as error:
            raise self._build_error("NVML", error) from None
        self._generation = session.generation
        self._names = tuple(gpus)
        return gpus

    def _find_gpus(self) -> dict[str, _OpenGpu]:
        gpus = {}
        for name in self._names or self._list_indices():
            try:
                gpu = self._inspect_gpu(self._get_handle(name))
            except self._nvml_library.NVMLError as error:
                what = f"GPU {name}" if name.isdigit() else name
                raise self._build_error(what, error) from None
            gpus[gpu.device.id] = gpu  # one that was asked for twice counts once
        return gpus

    def _refresh_handles(self) -> None:
        """Get new handles: another source has restarted the library."""
        for gpu in self._gpus.values():
            gpu.handle = self._nvml_library.nvmlDeviceGetHandleByUUID(gpu.device.id)
        self._generation = self._session.generation

    def _list_indices(self) -> list[str]:
        count = self._nvml_library.nvmlDeviceGetCount()
        if not count:
            raise SourceError("NVML shows no GPU; in a container, give it the GPUs")
        return [str(number) for number in range(count)]

    def _get_handle(self, name: str) -> Any:
        """Return the handle of a number or a UUID."""
        if name.startswith("MIG-"):
            raise SourceError(f"NVML: {name} is a MIG instance; {_MIG_ADVICE}, and name the GPU")
        if name.isascii() and name.isdigit():
            return self._nvml_library.nvmlDeviceGetHandleByIndex(int(name))
        return self._nvml_library.nvmlDeviceGetHandleByUUID(name)

    def _inspect_gpu(self, handle: Any) -> _OpenGpu:
        library = self._nvml_library
        device = EnergyDevice(
            _decode_text(library.nvmlDeviceGetUUID(handle)), _read_name(library, handle)
        )
        gpu = _OpenGpu(
            device, handle, self._is_mig(handle), self._counters.setdefault(device.id, GpuCounter())
        )
        gpu.counter.resume_after_hole()
        try:
            library.nvmlDeviceGetTotalEnergyConsumption(handle)
        except library.NVMLError as error:
            if not self._is_one_of(error, _NO_COUNTER):
                raise self._build_error(_format_device(device), error, mig=gpu.mig) from None
            gpu.counter.integrate_power()
        if gpu.counter.integrates and self._read_milliwatts(handle) is None:
            advice = f"; {_MIG_ADVICE}" if gpu.mig else "; it cannot be metered by NVML"
            raise SourceError(
                f"{_format_device(device)} tells neither its energy nor its power{advice}"
            )
        gpu.warned = gpu.counter.integrates
        return gpu

    def _read_gpu(self, gpu: _OpenGpu) -> int:
        counter, at_us = gpu.counter, self._clock_us()
        millijoules = milliwatts = None
        if not counter.integrates:
            millijoules = self._nvml_library.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)
        if counter.wants_power(at_us):
            try:
                milliwatts = self._read_milliwatts(gpu.handle)
            except self._nvml_library.NVMLError:
                if counter.integrates:  # else it was for a check only
                    raise
            if milliwatts is None and counter.integrates:
                raise SourceError(f"{_format_device(gpu.device)} no longer tells its power")
        microjoules = counter.record_reading(at_us, millijoules, milliwatts)
        if counter.integrates and not gpu.warned:
            gpu.warned = True
            _log.warning("%s", _describe_integration(gpu))
            self._update_kind()
        return microjoules

    def _read_milliwatts(self, handle: Any) -> int | None:
        """Return the power of this instant, else its mean over a second, else None."""
        library = self._nvml_library
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
            current, _ = self._nvml_library.nvmlDeviceGetMigMode(handle)
        except self._nvml_library.NVMLError:  # too old to have it
            return False
        return bool(current == self._nvml_library.NVML_DEVICE_MIG_ENABLE)

    def _is_one_of(self, error: Any, names: tuple[str, ...]) -> bool:
        return error.value in [getattr(self._nvml_library, name) for name in names]

    def _update_kind(self) -> None:
        summed = any(gpu.counter.integrates for gpu in self._gpus.values())
        self.kind = "nvml-power" if summed else "nvml"

    def _build_error(self, what: str, error: Any, *, mig: bool = False) -> SourceError:
        refused = ("NVML_ERROR_NO_PERMISSION", *_NO_COUNTER)
        if mig and self._is_one_of(error, refused):
            return SourceError(f"{what}: {error}; {_MIG_ADVICE}")
        advice = [text for name, text in _ADVICE.items() if self._is_one_of(error, (name,))]
        return SourceError("; ".join((f"{what}: {error}", *advice)))


def _describe_integration(gpu: _OpenGpu) -> str:
    ratio = gpu.counter.ratio
    why = "has no energy counter" if ratio is None else f"has a counter off by {ratio:.2f}x"
    return f"{_format_device(gpu.device)} {why}: its power is summed up instead"


def _format_device(device: EnergyDevice) -> str:
    return f"{device.name} ({device.id})"


def _read_name(library: Any, handle: Any) -> str:
    return _decode_text(library.nvmlDeviceGetName(handle))


def _decode_text(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text
