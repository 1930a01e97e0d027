"""Linux's powercap files: the energy of a CPU's packages, by Intel's or AMD's RAPL.

    /sys/class/powercap/intel-rapl:0/{name, energy_uj, max_energy_range_uj}

Only packages count. Their parts (intel-rapl:0:0: core, uncore) are within them, the platform
(psys) contains them, and intel-rapl-mmio shows the same packages again. A server's memory (dram)
is in none of them and is not counted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backends.meter.sources.source import EnergyDevice, SourceError

POWERCAP_ROOT: Final = Path("/sys/class/powercap")
_READABLE: Final = (
    "only root may read it since Linux 5.10: run the meter as root or with CAP_DAC_READ_SEARCH,"
    " or `chmod a+r` the energy_uj files at boot (any local user can then time secrets by them,"
    " CVE-2020-8694)"
)


class RaplSource:
    """Packages of these names (package-0 or intel-rapl:0; none: all) under a root."""

    def __init__(
        self, devices: Sequence[str] = (), *, root: Path = POWERCAP_ROOT, coarse: bool = False
    ) -> None:
        self.kind = "rapl"
        self.coarse = coarse
        """Whether it is enough to read it once a second."""
        self._asked = tuple(devices)
        self._root = root
        self._counters: dict[str, Path] = {}

    def open(self) -> tuple[EnergyDevice, ...]:
        """Find the packages. Raises SourceError; may be called again after one."""
        self.close()
        zones = self._find_packages()
        missing = set(self._asked) - {name for pair in zones.items() for name in pair}
        if missing:
            raise SourceError(
                f"RAPL: no package {', '.join(sorted(missing))}; there are {', '.join(zones)}"
            )
        devices = []
        for name, zone in zones.items():
            if self._asked and not {name, zone} & set(self._asked):
                continue
            counter = self._root / zone / "energy_uj"
            wraps_at = _read_number(counter.with_name("max_energy_range_uj"))
            device = EnergyDevice(name, zone, wraps_at or None)
            _read_number(counter)
            self._counters[name] = counter
            devices.append(device)
        return tuple(devices)

    def read(self, device: EnergyDevice) -> int:
        """Return the counter in microjoules. Raises SourceError."""
        counter = self._counters.get(device.id)
        if counter is None:
            raise SourceError(f"RAPL: {device.id} is not open")
        return _read_number(counter)

    def close(self) -> None:
        """Forget the packages; no file stays open."""
        self._counters = {}

    def _find_packages(self) -> dict[str, str]:
        """Return the zone of each package by its name."""
        try:
            # The packages that come with MSRs win over the same ones by MMIO.
            zones = sorted(
                (
                    p.name
                    for p in self._root.iterdir()
                    if "rapl" in p.name and p.name.count(":") == 1
                ),
                key=lambda zone: ("mmio" in zone, zone),
            )
        except OSError as error:
            raise SourceError(
                f"RAPL: {error.strerror}: {self._root}; it needs Linux on Intel or AMD (modprobe"
                " intel_rapl_msr) and is not there in most virtual machines"
            ) from None
        packages: dict[str, str] = {}
        for zone in zones:
            name = _read_text(self._root / zone / "name")
            if name.startswith("package"):
                packages.setdefault(name, zone)
        if not packages:
            raise SourceError(
                f"RAPL: no package under {self._root}; `modprobe intel_rapl_msr`, or a virtual"
                " machine that is not shown its CPU's energy"
            )
        return packages


def _read_text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except PermissionError:
        raise SourceError(f"RAPL: {path}: {_READABLE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"RAPL: {path}: {error}") from None


def _read_number(path: Path) -> int:
    text = _read_text(path)
    if not (text.isascii() and text.isdigit()):
        raise SourceError(f"RAPL: {path} holds {text[:40]!r}, not a number")
    return int(text)
