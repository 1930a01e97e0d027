"""Which source a name stands for."""

import pytest

from backends.meter.sources import choose as picking
from backends.meter.sources.source import EnergyDevice, SourceError


class Fake:
    coarse = False

    def __init__(self, kind, error=None):
        self.kind = kind
        self.error = error
        self.opened = self.closed = 0

    def open(self):
        self.opened += 1
        if self.error:
            raise SourceError(self.error)
        return (EnergyDevice("x", "x"),)

    def read(self, _):
        return 0

    def close(self):
        self.closed += 1


def pick(**sources):
    """What `auto` takes of these."""
    makers = {name: lambda *_, s=source: s for name, source in sources.items()}
    return picking.choose_source(picking.AUTO, makers=makers)


@pytest.mark.parametrize("kind", sorted(picking._MAKERS))
def test_each_kind_by_its_name(kind):
    assert picking.choose_source(kind, ["0"], "http://x").kind == kind


@pytest.mark.parametrize(("nvml", "taken"), [(None, "nvml"), ("no GPU", "rapl")])
def test_auto_takes_the_first_that_opens_and_leaves_all_closed(nvml, taken):
    sources = {"nvml": Fake("nvml", nvml), "rapl": Fake("rapl")}
    found = pick(**sources)
    (device,) = found.open()
    assert (found.kind, found.read(device)) == (taken, 0)
    found.close()
    assert all(source.opened == source.closed for source in sources.values())


def test_auto_with_nothing_says_what_each_said():
    nvml = Fake("nvml", "no GPU")
    found = pick(nvml=nvml, rapl=Fake("rapl", "no files"))
    with pytest.raises(SourceError, match=r"^no source of energy: nvml: no GPU; rapl: no files$"):
        found.open()
    assert found.kind == picking.AUTO
    nvml.error = None  # a driver that comes later is found then
    found.open()
    assert found.kind == "nvml"
