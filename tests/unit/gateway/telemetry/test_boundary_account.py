"""The boundary's series: every joule once, under its model and kind."""

from random import Random

import pytest
from prometheus_client import CollectorRegistry

from backends.registry import Backend, Deployment
from gateway.telemetry.boundary import BoundaryRates
from gateway.telemetry.boundary_account import BoundaryAccount, begin_host_share, end_host_share
from gateway.telemetry.carbon import CarbonIntensity
from gateway.telemetry.request_stages import BackendAttempt, WastedEnergy
from tests.unit.gateway.telemetry.request_records import make_record

RATES = BoundaryRates(1.5, None, 0.36, "EUR")


class Setting:
    """An account over two models on one server and one on another, its time in hand."""

    def __init__(self, **options):
        self.now = 0.0
        self.registry = CollectorRegistry()
        self.account = BoundaryAccount(
            RATES,
            100.0,
            [
                Deployment("m", "m", "m", [Backend("http://a:1")], rng=Random(1)),
                Deployment("n", "n", "n", [Backend("http://a:2")], rng=Random(1)),
                Deployment("o", "o", "o", [Backend("http://b:1")], rng=Random(1)),
            ],
            self.registry,
            clock=lambda: self.now,
            wall_clock=lambda: self.now,
            **options,
        )

    def read(self, name, model, kind, **labels):
        source = {"source": "configured"} if name.startswith("host_") else {}
        given = {"model": model, "kind": kind} | source | labels
        return self.registry.get_sample_value(f"joulegate_{name}", given)


@pytest.fixture
def setting():
    return Setting(carbon=CarbonIntensity(360.0))


def request(**fields):
    return make_record(at=1.5, **fields)


def test_a_request_and_the_idle_of_its_server(setting):
    record = request(model="m", joules=300.0, method="exclusive")
    setting.now = 1.0
    share = begin_host_share(setting.account, record, "m", "a:1")
    setting.now = 3.0
    end_host_share(share)
    setting.now = 4.0
    setting.account.collect_idle_joules()
    setting.account.add_unattributed_joules("m", "idle", 50.0)
    setting.account.add_unattributed_joules("m", "other", 25.0)
    setting.account.close_request(record)
    assert record.host.joules == pytest.approx(200.0)
    # 100 J before it and 100 J after it on server a, half of them each model's.
    assert setting.read("host_energy_joules_total", "m", "idle") == pytest.approx(100.0)
    assert setting.read("host_energy_joules_total", "n", "idle") == pytest.approx(100.0)
    assert setting.read("host_energy_joules_total", "o", "idle") == pytest.approx(400.0)
    assert setting.read("host_energy_joules_total", "m", "requests") == pytest.approx(200.0)
    for kind, joules in (("requests", 500.0), ("idle", 150.0), ("other", 25.0)):
        wall = joules * 1.5
        assert setting.read("facility_energy_joules_total", "m", kind) == pytest.approx(wall)
        grams = setting.read("facility_co2e_grams_total", "m", kind)
        assert grams == pytest.approx(wall / 1e4)
        price = setting.read("cost_total", "m", kind, currency="EUR")
        assert price == pytest.approx(wall / 1e7)
    shown = record.to_dict()["observed"]["boundary"]
    assert shown["facility_joules"] == pytest.approx(750.0)
    assert shown["idle_joules"] == pytest.approx(500.0 * 150.0 / 525.0, rel=1e-4)
    assert shown["co2e_grams"] == pytest.approx(0.075)
    assert shown["cost"] == pytest.approx(750.0 / 1e7)


def test_a_failed_attempt_is_its_own_models(setting):
    record = request(model="o", estimated=40.0)
    record.wasted.append(WastedEnergy("m", 10.0))
    failed = begin_host_share(setting.account, record, "m", "a:1")
    setting.now = 1.0
    end_host_share(failed)
    answered = begin_host_share(setting.account, record, "o", "b:1")
    setting.now = 3.0
    end_host_share(answered)
    record.settle_energy(None)
    setting.account.close_request(record)
    assert record.host.joules == pytest.approx(200.0)
    assert record.boundary.own.joules == pytest.approx(240.0 * 1.5)
    assert setting.read("host_energy_joules_total", "m", "requests") == pytest.approx(100.0)
    wall = setting.read("facility_energy_joules_total", "m", "requests")
    assert wall == pytest.approx(110.0 * 1.5)
    wall = setting.read("facility_energy_joules_total", "o", "requests")
    assert wall == pytest.approx(240.0 * 1.5)


def test_workers_share_the_watts():
    setting = Setting(processes=4)
    setting.now = 1.0
    setting.account.collect_idle_joules()
    assert setting.read("host_energy_joules_total", "o", "idle") == pytest.approx(25.0)
    assert setting.read("facility_co2e_grams_total", "o", "idle") is None


def test_series_are_there_before_anything_happened(setting):
    for kind in ("requests", "idle", "other"):
        assert setting.read("facility_energy_joules_total", "m", kind) == 0.0
        assert setting.read("cost_total", "m", kind, currency="EUR") == 0.0


def test_a_request_that_no_model_answered_has_no_lines(setting):
    record = request(code=404)
    record.settle_energy(None)
    setting.account.close_request(record)
    assert record.to_dict()["observed"]["boundary"] is None


def test_without_a_boundary_nothing_is_counted():
    assert begin_host_share(None, request(), "m", "a:1") is None
    end_host_share(None)


def test_what_the_last_attempt_spent_in_vain_is_counted_once(setting):
    record = request()
    record.attempts.append(BackendAttempt("m", "a:1", "timeout"))
    record.wasted.append(WastedEnergy("m", 10.0))
    record.blame_last_attempt()
    record.settle_energy(None)
    setting.account.close_request(record)
    wall = setting.read("facility_energy_joules_total", "m", "requests")
    assert wall == pytest.approx(10.0 * 1.5)
    assert record.boundary.own.joules == pytest.approx(10.0 * 1.5)
