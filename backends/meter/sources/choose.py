"""Which source of energy a meter reads, by its name; `auto` takes the first that opens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from backends.meter.sources.dcgm import DcgmSource
from backends.meter.sources.nvml import NvmlSource
from backends.meter.sources.rapl import RaplSource
from backends.meter.sources.simulated import Simulated
from backends.meter.sources.source import Source, SourceError

AUTO: Final = "auto"
Makers = Mapping[str, Callable[[Sequence[str], str], Source]]
_MAKERS: Final[Makers] = {
    "nvml": lambda devices, _: NvmlSource(devices),
    "rapl": lambda devices, _: RaplSource(devices),
    "dcgm": lambda devices, url: DcgmSource(url, devices),
    "simulator": lambda _, url: Simulated(url),
}
_TRIED: Final = ("nvml", "rapl")


def pick(
    kind: str, devices: Sequence[str] = (), url: str = "", *, makers: Makers = _MAKERS
) -> Source:
    """Return a source, not open. Raises SourceError where `auto` finds none, saying why."""
    if kind != AUTO:
        return makers[kind](devices, url)
    said = []
    for name in _TRIED:
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
