"""The simulated counter's updates, without a server."""

import pytest

from backends.meter.sources.simulated import SimulatorSource
from backends.meter.sources.source import SourceError


class Steady(SimulatorSource):
    """A backend of 300 W whose counter is the clock."""

    def __init__(self, **options):
        self.now = 100.0
        super().__init__("http://sim:1/base", clock=lambda: self.now, **options)

    def _fetch(self, _netloc):
        return round(self.now * 300e6)


def read(source, device, *ats):
    shown = []
    for at in ats:
        source.now = at
        shown.append(source.read(device) / 300e6)
    return shown


def test_without_a_period_it_moves_at_each_reading():
    source = Steady()
    (device,) = source.open()
    assert device.id == "sim:1"
    assert read(source, device, 100.01, 100.02, 100.5) == [100.01, 100.02, 100.5]


def test_with_a_period_it_shows_what_it_was_at_its_last_update():
    source = Steady(period_seconds=0.25)
    (device,) = source.open()
    (first,) = read(source, device, 100.01)
    assert first == 100.01
    ats = (100.2, 100.26, 100.49, 100.5, 100.74, 101.8)
    assert read(source, device, *ats) == pytest.approx(
        [first, 100.25, 100.25, 100.5, 100.5, 101.75]
    )


def test_a_server_that_was_started_anew_shows_it_at_once():
    source = Steady(period_seconds=0.25)
    (device,) = source.open()
    read(source, device, 100.3)
    assert read(source, device, 50.0) == [50.0]


def test_a_server_that_is_not_there():
    source = SimulatorSource("http://127.0.0.1:1")
    (device,) = source.open()
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:1 cannot be read"):
        source.read(device)
