"""Which source of energy a meter reads, by its name; `auto` is the first that opens."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from backends.meter.sources.counter_file import CounterFileSource
from backends.meter.sources.dcgm import DcgmSource
from backends.meter.sources.nvml import NvmlSource
from backends.meter.sources.rapl import RaplSource
from backends.meter.sources.simulated import SimulatorSource
from backends.meter.sources.source import EnergyDevice, EnergySource, SourceError

_log = logging.getLogger("joulegate.meter")

AUTO: Final = "auto"
NO_HOST: Final = "none"
SourceFactories = Mapping[str, Callable[[Sequence[str], str], EnergySource]]
_MAKERS: Final[SourceFactories] = {
    "nvml": lambda devices, _: NvmlSource(devices),
    "rapl": lambda devices, _: RaplSource(devices),
    "dcgm": lambda devices, url: DcgmSource(url, devices),
    "file": lambda devices, _: CounterFileSource(Path(devices[0])),
    "simulator": lambda _, url: SimulatorSource(url),
}
_AUTO_ORDER: Final = ("nvml", "rapl")


class FirstSource:
    """The first of several sources that opens; tried anew whenever it is opened."""

    coarse = False

    def __init__(self, sources: Mapping[str, EnergySource]) -> None:
        self.kind: str = AUTO
        """That of the source that opened."""
        self._sources = sources
        self._found: EnergySource | None = None

    @property
    def checks(self) -> Mapping[str, float | None]:
        """What the source that opened found of its counters."""
        return getattr(self._found, "checks", {})

    @property
    def warnings(self) -> Sequence[str]:
        """What the source that opened warns of."""
        return getattr(self._found, "warnings", ())

    def open(self) -> tuple[EnergyDevice, ...]:
        """Find the devices. Raises SourceError with what each source said."""
        self.close()
        said = []
        for name, source in self._sources.items():
            try:
                devices = source.open()
            except SourceError as error:
                said.append(f"{name}: {error}")
                source.close()
            else:
                self._found, self.kind = source, source.kind
                return devices
        raise SourceError("no source of energy: " + "; ".join(said))

    def read(self, device: EnergyDevice) -> int:
        """Return the counter in microjoules. Raises SourceError."""
        if self._found is None:
            raise SourceError("no source of energy is open")
        return self._found.read(device)

    def close(self) -> None:
        """Free what it holds."""
        if self._found is not None:
            self._found.close()


def choose_host_source(kind: str, root: Path) -> EnergySource | None:
    """Return what counts the server without its accelerators, not open; None where nothing does.

    `auto` is RAPL where it can be read now, `rapl` is tried again for as long as it cannot be.
    """
    if kind == NO_HOST:
        return None
    source = RaplSource(root=root, coarse=True)
    if kind == AUTO:
        try:
            source.open()
        except SourceError as error:
            _log.info("the host's energy is not counted: %s", error)
            return None
        finally:
            source.close()
    return source


def choose_source(
    kind: str, devices: Sequence[str] = (), url: str = "", *, makers: SourceFactories = _MAKERS
) -> EnergySource:
    """Return a source, not open."""
    if kind == AUTO:
        return FirstSource({name: makers[name](devices, url) for name in _AUTO_ORDER})
    return makers[kind](devices, url)
