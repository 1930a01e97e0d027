"""The servers of a fleet, and which meter counts each."""

from random import Random

import pytest
from prometheus_client import CollectorRegistry

from backends.meter.client.request_handle import BackendMeter
from backends.meter.protocol import HostEnergy
from backends.registry import Backend, Deployment
from gateway.telemetry.boundary import BoundaryRates
from gateway.telemetry.boundary_account import BoundaryAccount, begin_host_share, end_host_share
from gateway.telemetry.metered_hosts import MeteredHosts
from tests.unit.gateway.telemetry.request_records import make_record


class Link:
    """A connection to a meter, as far as a host needs it."""

    def __init__(self):
        self.host = None

    def read(self, joules, seconds):
        self.host = HostEnergy("rapl", round(joules * 1e6), round(seconds * 1e6))


def deploy(**meters):
    """A deployment `m` with a backend on each host, by the host's name."""
    backends = []
    for number, (host, link) in enumerate(meters.items()):
        backend = Backend(f"http://{host}:{number + 1}")
        if link is not None:
            backend.meter = BackendMeter(link, 0, backend.label, "")
        backends.append(backend)
    return Deployment("m", "m", "m", backends, rng=Random(1))


def watts_of(hosts):
    return [host.power.watts for host in hosts]


def test_a_host_with_a_meter_and_one_without():
    link = Link()
    hosts = MeteredHosts([deploy(a=link, b=None)], 300.0, 0.0)
    hosts.refresh_power(0.0)
    assert watts_of(hosts) == [300.0, 300.0]
    link.read(0.0, 0.0)
    hosts.refresh_power(10.0)
    link.read(80.0, 1.0)
    hosts.refresh_power(10.0)
    assert watts_of(hosts) == [88.0, 300.0]
    hosts.refresh_power(25.1)
    assert watts_of(hosts) == [300.0, 300.0]


def test_a_meter_of_two_hosts_is_counted_once():
    link = Link()
    hosts = MeteredHosts([deploy(a=link, b=link)], 0.0, 0.0)
    link.read(0.0, 0.0)
    hosts.refresh_power(0.0)
    link.read(100.0, 1.0)
    hosts.refresh_power(0.0)
    assert watts_of(hosts) == [pytest.approx(55.0)] * 2


def test_a_host_with_two_meters_goes_by_one():
    first, second = Link(), Link()
    deployments = [deploy(a=first), Deployment("n", "n", "n", [], rng=Random(1))]
    other = Backend("http://a:9")
    other.meter = BackendMeter(second, 0, other.label, "")
    deployments[1].backends += (other,)
    hosts = MeteredHosts(deployments, 0.0, 0.0)
    for joules, seconds in ((0.0, 0.0), (100.0, 1.0)):
        first.read(joules, seconds)
        second.read(joules, seconds)
        hosts.refresh_power(0.0)
    assert watts_of(hosts) == [pytest.approx(110.0)]


def test_a_request_says_how_its_hosts_power_was_known():
    now, link, registry = 0.0, Link(), CollectorRegistry()
    account = BoundaryAccount(
        BoundaryRates(), 50.0, [deploy(a=link)], registry, clock=lambda: now, wall_clock=lambda: now
    )
    link.read(0.0, 0.0)
    account.collect_idle_joules()
    now = 1.0
    link.read(80.0, 1.0)
    account.collect_idle_joules()
    record = make_record(at=1.5, model="m", joules=1.0, method="exclusive")
    share = begin_host_share(account, record, "m", "a:1")
    now = 2.0
    end_host_share(share)
    account.close_request(record)
    # 80 W, and the 30 J by which the first second was charged too little over the next ten.
    lines = record.to_dict()["observed"]["boundary"]
    assert (lines["host_source"], lines["host_joules"]) == ("rapl", pytest.approx(83.0))
    name = "joulegate_host_energy_joules_total"
    told = {
        (kind, source): registry.get_sample_value(
            name, {"model": "m", "kind": kind, "source": source}
        )
        for kind, source in (("requests", "rapl"), ("idle", "configured"))
    }
    assert told == {("requests", "rapl"): pytest.approx(83.0), ("idle", "configured"): 50.0}
