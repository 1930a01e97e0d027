"""Counters of a GPU's energy: NVML's, and one that is made up."""

import time


class NvmlCounter:
    """The first GPU's, in microjoules."""

    def __init__(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._library = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def describe(self) -> dict[str, object]:
        """Return what the GPU is and what holds it back; None for what its driver cannot tell."""
        library, handle = self._library, self._handle
        asked = {
            "name": lambda: str(library.nvmlDeviceGetName(handle)),
            "driver": lambda: str(library.nvmlSystemGetDriverVersion()),
            "power_limit_watts": lambda: library.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
            "celsius": lambda: library.nvmlDeviceGetTemperature(
                handle, library.NVML_TEMPERATURE_GPU
            ),
        }
        found: dict[str, object] = {}
        for name, ask in asked.items():
            try:
                found[name] = ask()
            except library.NVMLError:
                found[name] = None
        return found

    def read(self) -> int:
        """Return what it shows."""
        return int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) * 1000


class FakeCounter:
    """50 W, told every 20 ms."""

    def describe(self) -> dict[str, object]:
        """Return what it is."""
        return {"name": "made up"}

    def read(self) -> int:
        """Return what it shows."""
        return int(time.monotonic() / 0.02) * 1_000_000
