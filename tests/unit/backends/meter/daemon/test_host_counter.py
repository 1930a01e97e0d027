"""What a server draws without accelerators: RAPL files read, divided among gateways, told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.meter.daemon.host_counter import share_energy
from backends.meter.daemon.ledger_runner import LedgerSpec
from backends.meter.daemon.service import MeterService
from backends.meter.protocol import BackendRef, EventBatch, HostEnergy, RequestBegin, RequestEnd
from backends.meter.sources.choose import choose_host_source
from backends.meter.sources.rapl import RaplSource
from backends.meter.sources.source import SourceError
from tests.powercap import Powercap
from tests.unit.backends.meter.daemon.counters import Counters

SECOND = 1_000_000


class Setting:
    """A meter whose host's counters and time are a test's; gateways post by name."""

    def __init__(self, root, ledger_source=None):
        self.files = Powercap(root)
        self.now_us = SECOND
        self.service = MeterService(
            [LedgerSpec("gpu", ledger_source or Counters())],
            host_source=RaplSource(root=root, coarse=True),
        )
        self.host = self.service.host
        self.host.sampler._clock = lambda: self.now_us

    def pass_second(self, *joules):
        """Let a second pass in which each package draws so many joules, and read them."""
        self.files.advance(*joules)
        self.now_us += SECOND
        self.host.sampler.read_counters()

    def post(self, gateway, *events):
        batch = EventBatch(gateway, [BackendRef("b")], list(events))
        return self.service.receive_batch(batch, self.now_us).host


@pytest.fixture
def setting(tmp_path):
    made = Setting(tmp_path)
    made.host.sampler.open_source()
    return made


def test_a_gateway_is_told_all_that_the_packages_drew(setting):
    assert setting.post("g") == HostEnergy("rapl", 0, 0)
    setting.pass_second(60.0, 40.0)
    assert setting.post("g") == HostEnergy("rapl", 100 * SECOND, SECOND)
    setting.pass_second(1.0, 2.0)
    assert setting.post("g") == HostEnergy("rapl", 103 * SECOND, 2 * SECOND)
    assert setting.host.microjoules_by_device == {
        "package-0": 61 * SECOND,
        "package-1": 42 * SECOND,
    }


def test_a_counter_that_starts_over_at_its_range_loses_nothing(setting):
    setting.post("g")
    for _ in range(12):  # 150 J a second, starting over at 1,000 J
        setting.pass_second(150.0, 150.0)
    assert setting.files.values[0] > setting.files.range_uj
    assert setting.post("g") == HostEnergy("rapl", 3600 * SECOND, 12 * SECOND)


def test_gateways_share_by_open_requests_and_evenly_without_any(setting):
    setting.post("a", *(RequestBegin(one, 0, 0, 5, 0) for one in range(3)))
    setting.post("b", RequestBegin(1, 0, 0, 5, 0))
    setting.pass_second(60.0, 40.0)
    assert (setting.post("a").microjoules, setting.post("b").microjoules) == (75e6, 25e6)
    setting.post("a", *(RequestEnd(one, 0, 2) for one in range(3)))
    setting.pass_second(60.0, 40.0)
    assert (setting.post("a").microjoules, setting.post("b").microjoules) == (75e6, 125e6)
    setting.post("b", RequestEnd(1, 0, 2))
    setting.pass_second(60.0, 40.0)
    assert (setting.post("a").microjoules, setting.post("b").microjoules) == (125e6, 175e6)


@given(
    st.integers(0, 10**9),
    st.lists(st.integers(0, 1000), min_size=1, max_size=20),
)
def test_shares_sum_to_what_was_drawn(microjoules, loads):
    class Session:
        """As much of a session as counts here."""

        def __init__(self, open_requests):
            self.vanished, self.open_requests = False, open_requests
            self.host_microjoules = self.host_us = 0

    sessions = [Session(load) for load in loads]
    share_energy(microjoules, SECOND, sessions)
    assert sum(one.host_microjoules for one in sessions) == microjoules
    for one in sessions:
        fair = microjoules * (one.open_requests / sum(loads) if any(loads) else 1 / len(loads))
        assert one.host_microjoules == pytest.approx(fair, abs=1.0)


def test_what_was_drawn_before_any_gateway_is_nobodys(setting):
    setting.pass_second(60.0, 40.0)
    setting.service.apply_counter_events()
    assert setting.post("g") == HostEnergy("rapl", 0, 0)


def test_a_counter_that_cannot_be_read_is_not_told_and_comes_back(setting):
    setting.post("g")
    setting.files.hide()
    with pytest.raises(SourceError):
        setting.host.sampler.read_counters()
    setting.host.sampler.record_failure("gone")
    assert setting.post("g") is None
    assert setting.host.describe_health()["last_error"] == "gone"
    setting.now_us += 30 * SECOND
    setting.files.advance(500.0, 500.0)  # unseen, so nobody's
    setting.host.sampler.open_source()
    setting.pass_second(60.0, 40.0)
    assert setting.post("g") == HostEnergy("rapl", 100 * SECOND, SECOND)


def test_no_joule_of_a_cpu_is_counted_by_a_ledger_and_as_the_hosts(tmp_path):
    ledger_source = Counters()
    setting = Setting(tmp_path, ledger_source)
    setting.host.sampler.open_source()
    ledger_source.kind = "rapl"  # what `auto` becomes where there is no GPU
    assert setting.post("g") is None
    setting.pass_second(60.0, 40.0)
    assert setting.post("g") is None
    ledger_source.kind = "nvml"
    assert setting.post("g") == HostEnergy("rapl", 0, 0)


def test_which_source_counts_a_host(tmp_path):
    assert choose_host_source("none", tmp_path) is None
    assert choose_host_source("auto", tmp_path / "missing") is None
    assert choose_host_source("rapl", tmp_path / "missing") is not None
    Powercap(tmp_path / "sys")
    found = choose_host_source("auto", tmp_path / "sys")
    assert (found.kind, found.coarse) == ("rapl", True)


def test_a_meter_without_a_host_tells_none():
    service = MeterService([LedgerSpec("gpu", Counters())])
    assert service.receive_batch(EventBatch("g", [], []), 1).host is None
