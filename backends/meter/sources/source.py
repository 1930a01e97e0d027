"""Where a counter of energy comes from. A source is one file that offers this protocol."""

from dataclasses import dataclass
from typing import Protocol


class SourceError(Exception):
    """A counter cannot be read now; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class EnergyDevice:
    """One counter: `id` is its label in metrics (a GPU's UUID), `name` the hardware's."""

    id: str
    name: str
    wraps_at_microjoules: int | None = None
    """Where the counter starts over at 0; None: a counter that falls has been reset."""


class EnergySource(Protocol):
    """Counters of one kind; all methods may block and are called from one thread."""

    kind: str
    """What `meter_source_info` says: nvml, nvml-power, dcgm, file, rapl, simulator."""
    coarse: bool
    """Whether it moves less than once a second, whatever its period is found to be."""

    def open(self) -> tuple[EnergyDevice, ...]:
        """Find the devices. Raises SourceError; may be called again after one."""

    def read(self, device: EnergyDevice) -> int:
        """Return the counter in microjoules. Raises SourceError."""

    def close(self) -> None:
        """Free what it holds."""
