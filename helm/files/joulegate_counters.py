"""Write a GPU server's energy counters into a file: `joulegate_counters.py FILE [GPUS]`.

Runs in the container that was given the GPUs; the meter beside it was given none and reads the file
(`joulegate meter --source file --device FILE`). NVIDIA's counters come from the driver's library,
AMD's from `amdsmi`, which ROCm's images have. What is in the way is written too, for the meter to
say: so is another number of GPUs than GPUS, for then they are not all this server's (a privileged
container sees the whole node's). Needs nothing but Python.
"""

# ruff: noqa: INP001 - a script

import contextlib
import ctypes
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

PERIOD_SECONDS = 0.02
POWER_EVERY = 5
"""Power is a check on the counter and need not be as fresh."""
RETRY_SECONDS = 5.0
ROOT = Path(os.environ.get("JOULEGATE_ROOT", "/"))
"""Where sys and dev are."""
LIBRARY = os.environ.get("JOULEGATE_NVML", "libnvidia-ml.so.1")
NOT_SUPPORTED = (3, 13)  # the call, or the function itself

Gpus = dict[str, dict[str, object]]


class CountersError(Exception):
    """There are no counters to be read; says why."""


class Nvml:
    """NVIDIA's GPUs of this container."""

    kind = "nvml"

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise CountersError(f"NVIDIA: {error}") from None
        self._call("nvmlInitWithFlags", ctypes.c_uint(0))
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        if not count.value:
            raise CountersError("NVIDIA: the container was given no GPU")
        self._gpus: dict[str, tuple[ctypes.c_void_p, str]] = {}
        for number in range(count.value):
            handle = ctypes.c_void_p()
            self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(number), ctypes.byref(handle))
            uuid, name = (
                self._text("nvmlDeviceGetUUID", handle),
                self._text("nvmlDeviceGetName", handle),
            )
            current, pending = ctypes.c_uint(), ctypes.c_uint()
            self._ask("nvmlDeviceGetMigMode", handle, ctypes.byref(current), ctypes.byref(pending))
            if current.value:
                raise CountersError(
                    f"NVIDIA: {name} ({uuid}) is split up (MIG), and energy counters are the whole"
                    " GPU's: joules stay estimated"
                )
            self._gpus[uuid] = handle, name
        self._milliwatts: dict[str, int | None] = {}

    def read(self, *, power: bool) -> Gpus:
        """Return each GPU's counter, and its power as last looked at."""
        found: Gpus = {}
        for uuid, (handle, name) in self._gpus.items():
            energy, draw = ctypes.c_ulonglong(), ctypes.c_uint()
            has = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle, ctypes.byref(energy))
            if power or uuid not in self._milliwatts:
                told = self._ask("nvmlDeviceGetPowerUsage", handle, ctypes.byref(draw))
                self._milliwatts[uuid] = draw.value if told else None
            milliwatts = self._milliwatts[uuid]
            if not has and milliwatts is None:
                raise CountersError(f"NVIDIA: {name} ({uuid}) tells neither energy nor power")
            millijoules = energy.value if has else None
            found[uuid] = {"name": name, "millijoules": millijoules, "milliwatts": milliwatts}
        return found

    def _call(self, function: str, *arguments: object) -> None:
        """Call the library; raise what it says."""
        code = getattr(self._library, function)(*arguments)
        if code:
            said = b""
            if hasattr(self._library, "nvmlErrorString"):
                self._library.nvmlErrorString.restype = ctypes.c_char_p
                said = self._library.nvmlErrorString(code)
            raise CountersError(f"NVIDIA: {function}: {said.decode() or f'error {code}'}")

    def _ask(self, function: str, *arguments: object) -> bool:
        """Call what not every GPU has; return whether this one does."""
        if not hasattr(self._library, function):
            return False
        code = getattr(self._library, function)(*arguments)
        if code and code not in NOT_SUPPORTED:
            self._call(function, *arguments)
        return not code

    def _text(self, function: str, handle: ctypes.c_void_p) -> str:
        text = ctypes.create_string_buffer(96)
        self._call(function, handle, text, ctypes.c_uint(len(text)))
        return text.value.decode(errors="replace")


class Amd:
    """AMD's GPUs of this container: the library lists all of the node's, given or not."""

    kind = "amdsmi"

    def __init__(self) -> None:
        try:
            self._library = importlib.import_module("amdsmi")
        except (ImportError, OSError, KeyError) as error:
            raise CountersError(f"AMD: {error}") from None
        self._library.amdsmi_init()
        handles = self._library.amdsmi_get_processor_handles()
        own = [handle for handle in handles if self._is_given(handle)]
        if not own:
            raise CountersError(f"AMD: the container was given none of {len(handles)} GPUs")
        self._gpus: dict[str, tuple[object, str]] = {}
        for handle in own:
            uuid = str(self._library.amdsmi_get_gpu_device_uuid(handle))
            self._refuse_part(handle, uuid)
            told = self._ask("amdsmi_get_gpu_asic_info", handle) or {}
            self._gpus[uuid] = handle, str(told.get("market_name") or "AMD GPU")
        self._milliwatts: dict[str, int | None] = {}

    def read(self, *, power: bool) -> Gpus:
        """Return each GPU's counter, whose resolution is a step's microjoules, and its power."""
        found: Gpus = {}
        for uuid, (handle, name) in self._gpus.items():
            told = self._library.amdsmi_get_energy_count(handle)
            steps = told.get("energy_accumulator", told.get("power"))
            millijoules = int(steps * told["counter_resolution"] / 1000)
            if power or uuid not in self._milliwatts:
                self._milliwatts[uuid] = self._read_power(handle)
            milliwatts = self._milliwatts[uuid]
            found[uuid] = {"name": name, "millijoules": millijoules, "milliwatts": milliwatts}
        return found

    def _is_given(self, handle: object) -> bool:
        """Whether the GPU's device node is here; sysfs shows those of the whole node."""
        address = self._library.amdsmi_get_gpu_device_bdf(handle)
        nodes = (ROOT / "sys/bus/pci/devices" / address / "drm").glob("renderD*")
        return any((ROOT / "dev/dri" / node.name).exists() for node in nodes)

    def _refuse_part(self, handle: object, uuid: str) -> None:
        mode = self._ask("amdsmi_get_gpu_compute_partition", handle)
        if mode not in (None, "", "N/A", "SPX"):
            raise CountersError(
                f"AMD: {uuid} is split up ({mode}), and energy counters are the whole GPU's:"
                " joules stay estimated"
            )

    def _read_power(self, handle: object) -> int | None:
        """Return the milliwatts; which of the two there is depends on the GPU."""
        told = self._ask("amdsmi_get_power_info", handle) or {}
        watts = (told.get("current_socket_power"), told.get("average_socket_power"))
        return next((1000 * each for each in watts if isinstance(each, int) and each), None)

    def _ask(self, function: str, handle: object) -> Any:
        """Call what not every GPU or version has; None where this one has not."""
        with contextlib.suppress(AttributeError, self._library.AmdSmiException):
            return getattr(self._library, function)(handle)
        return None


def open_counters() -> Nvml | Amd:
    """Return the counters that there are. Raises CountersError with what each library said."""
    said = []
    for kind in (Nvml, Amd):
        try:
            return kind()
        except CountersError as error:
            said.append(str(error))
    raise CountersError("; ".join(said))


def refuse_others(gpus: Gpus, wanted: int | None) -> None:
    """Raise CountersError where there are other GPUs than the server's, or fewer."""
    if wanted not in (None, len(gpus)):
        raise CountersError(
            f"the server was given {wanted} and sees {len(gpus)} GPUs: whose joules are whose is"
            " not known, and they stay estimated"
        )


def write(path: Path, **told: object) -> None:
    """Put a whole new file in the place of the old one."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"at_us": time.monotonic_ns() // 1000, **told}))
    beside.replace(path)


def main(path: Path, wanted: int | None = None) -> None:
    """Write for ever, the counters or what is in the way."""
    while True:
        try:
            counters = open_counters()
            turn = 0
            while True:
                gpus = counters.read(power=turn % POWER_EVERY == 0)
                refuse_others(gpus, wanted)
                write(path, kind=counters.kind, gpus=gpus)
                turn += 1
                time.sleep(PERIOD_SECONDS)
        except Exception as error:  # noqa: BLE001 - the server it runs beside must not miss it
            write(path, error=str(error) or type(error).__name__)
            time.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
