"""A tree of files like /sys/class/powercap, whose counters a test moves."""


class Powercap:
    """Packages of a server; counters in microjoules, starting over at `range_uj`."""

    def __init__(self, root, *, packages=2, range_uj=1_000_000_000):
        self.root = root
        self.range_uj = range_uj
        self.values = [0] * packages
        for number in range(packages):
            zone = root / f"intel-rapl:{number}"
            zone.mkdir(parents=True)
            (zone / "name").write_text(f"package-{number}\n")
            (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
            self._write(number)

    def advance(self, *joules):
        """Let each package draw so many joules."""
        for number, drawn in enumerate(joules):
            self.values[number] += round(drawn * 1e6)
            self._write(number)

    def hide(self):
        """Let nobody read them any more."""
        for number in range(len(self.values)):
            (self.root / f"intel-rapl:{number}" / "energy_uj").unlink()

    def _write(self, number):
        # In one step: a reader must never see half a number.
        counter = self.root / f"intel-rapl:{number}" / "energy_uj"
        whole = counter.with_name("energy_uj.new")
        whole.write_text(f"{self.values[number] % self.range_uj}\n")
        whole.replace(counter)
