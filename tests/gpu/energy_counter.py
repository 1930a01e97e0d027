"""Counters of a GPU's energy: NVML's, and one that is made up."""

import time


class NvmlCounter:
    """The first GPU's, in microjoules."""

    def __init__(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._library = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self.name = str(pynvml.nvmlDeviceGetName(self._handle))

    def read(self) -> int:
        """Return what it shows."""
        return int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) * 1000


class FakeCounter:
    """50 W, told every 20 ms."""

    name = "made up"

    def read(self) -> int:
        """Return what it shows."""
        return int(time.monotonic() / 0.02) * 1_000_000
