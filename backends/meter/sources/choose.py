"""Which source of energy a meter reads, by its name; `auto` takes the first that opens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from backends.meter.sources.dcgm import DcgmSource
from backends.meter.sources.nvml import NvmlSource
from backends.meter.sources.rapl import RaplSource
from backends.meter.sources.simulated import SimulatorSource
from backends.meter.sources.source import EnergySource, SourceError

AUTO: Final = "auto"
SourceFactories = Mapping[str, Callable[[Sequence[str], str], EnergySource]]
_MAKERS: Final[SourceFactories] = {
    "nvml": lambda devices, _: NvmlSource(devices),
    "rapl": lambda devices, _: RaplSource(devices),
    "dcgm": lambda devices, url: DcgmSource(url, devices),
    "simulator": lambda _, url: SimulatorSource(url),
}
_AUTO_ORDER: Final = ("nvml", "rapl")


def choose_source(
    kind: str, devices: Sequence[str] = (), url: str = "", *, makers: SourceFactories = _MAKERS
) -> EnergySource:
    """Return a source, not open. Raises SourceError where `auto` finds none, saying why."""
    if kind != AUTO:
        return makers[kind](devices, url)
    said = []
    for name in _AUTO_ORDER:
        source = makers[name](devices, url)
        try:
            source.open()
        except SourceError as error:
            said.append(f"{name}: {error}")
        else:
            return source
        finally:
            source.close()
    raise SourceError("no source of energy: " + "; ".join(said))
