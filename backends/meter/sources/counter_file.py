"""Counters that another container writes into a shared file: it was given the GPUs, the meter none.

The file is JSON: `at_us`, monotonic microseconds of the reading (containers of a pod share that
clock), and `gpus`, by UUID their `name`, `millijoules` and `milliwatts`, where known; or `error`,
what is in the way of a reading. It is replaced as a whole, some fifty times a second.

A turn of readings, one of each GPU, reads the file once: a GPU that is asked for again begins
the next.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from backends.meter.clock import clock_us
from backends.meter.sources.gpu_counter import GpuCounter
from backends.meter.sources.source import EnergyDevice, SourceError

_MOST_BYTES: Final = 1 << 16
_STALE_US: Final = 2_000_000


class _Gpu(Struct):
    name: str
    millijoules: int | None = None
    milliwatts: int | None = None


class _Reading(Struct):
    at_us: int
    gpus: dict[str, _Gpu] = {}
    error: str | None = None


class CounterFileSource:
    """All GPUs of one file."""

    coarse = False
    kind = "file"

    def __init__(self, path: Path, *, clock_us: Callable[[], int] = clock_us) -> None:
        self._path = path
        self._clock_us = clock_us
        self._counters: dict[str, GpuCounter] = {}
        self._seen_us: dict[str, int] = {}
        self._reading = _Reading(0)
        self._unasked: set[str] = set()

    @property
    def checks(self) -> dict[str, float | None]:
        """By device id: the counter's advance over integrated power's; None: not known."""
        return {uuid: self._counters[uuid].ratio for uuid in self._seen_us}

    def open(self) -> tuple[EnergyDevice, ...]:
        """Find the GPUs. Raises SourceError; may be called again after one."""
        self.close()
        reading = self._read_file()
        for uuid, gpu in reading.gpus.items():
            counter = self._counters.setdefault(uuid, GpuCounter())
            counter.resume_after_hole()
            if gpu.millijoules is None:
                counter.integrate_power()
            self._note_reading(uuid, gpu, reading.at_us)
        return tuple(EnergyDevice(uuid, gpu.name) for uuid, gpu in reading.gpus.items())

    def read(self, device: EnergyDevice) -> int:
        """Return the counter in microjoules. Raises SourceError."""
        if device.id not in self._unasked:
            self._reading = self._read_file()
            self._unasked = set(self._reading.gpus)
        gpu = self._reading.gpus.get(device.id)
        if gpu is None or device.id not in self._seen_us:
            raise SourceError(f"{self._path}: {device.name} ({device.id}) is no longer there")
        self._unasked.remove(device.id)
        return self._note_reading(device.id, gpu, self._reading.at_us)

    def close(self) -> None:
        """Forget what was open."""
        self._seen_us, self._unasked = {}, set()

    def _note_reading(self, uuid: str, gpu: _Gpu, at_us: int) -> int:
        """Return the microjoules; a reading that was seen before is no new one."""
        counter = self._counters[uuid]
        if self._seen_us.get(uuid) == at_us:
            return counter.microjoules
        self._seen_us[uuid] = at_us
        return counter.record_reading(at_us, gpu.millijoules, gpu.milliwatts)

    def _read_file(self) -> _Reading:
        try:
            with self._path.open("rb") as file:
                text = file.read(_MOST_BYTES)
        except FileNotFoundError:
            raise SourceError(
                f"{self._path} is not there yet: the model server's container writes it"
            ) from None
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror}") from None
        try:
            reading = msgspec.json.decode(text, type=_Reading)
        except msgspec.MsgspecError as error:
            raise SourceError(f"{self._path}: {error}") from None
        if reading.error is not None:
            raise SourceError(f"the model server's container sees no counter: {reading.error}")
        age_us = self._clock_us() - reading.at_us
        if age_us > _STALE_US:
            raise SourceError(
                f"{self._path} is {age_us / 1e6:.0f} s old: the model server's container has ended"
            )
        return reading
