"""A meter without sockets and without a source: a test moves its clock and its counters."""

from prometheus_client import CollectorRegistry, generate_latest

from backends.meter.daemon.counter import MICRO
from backends.meter.daemon.ledger_runner import LedgerSpec
from backends.meter.daemon.metrics import MeterMetricsCollector
from backends.meter.daemon.sampler import CounterEvent
from backends.meter.daemon.service import MeterService
from backends.meter.protocol import (
    BackendRef,
    EventBatch,
    RequestBegin,
    RequestEnd,
    RequestProgress,
)
from backends.meter.sources.source import EnergyDevice

A = BackendRef("a")


class Silent:
    """A source that nobody reads: the tests tell the ledger themselves."""

    kind = "scripted"
    coarse = False

    def open(self):
        return (EnergyDevice("g", "G"),)

    def read(self, _device):
        return 0

    def close(self):
        pass


class World:
    """A meter, a clock, and counters that run at 1 W."""

    def __init__(self, *ledgers):
        self.meter = MeterService(ledgers or [LedgerSpec("l", Silent())])
        self.now_us = 0
        for name, station in self.meter.runners.items():
            station.sampler._events.append(CounterEvent("start", 0, {}))
            station.microjoules_by_device = {f"gpu-{name}": 0}

    def pass_seconds(self, seconds, watts=1):
        for _ in range(round(seconds * 10)):
            self.tell(0.1, round(watts * 1e5))

    def tell(self, seconds, *microjoules):
        """An interval and what each device's counter moved by."""
        self.now_us += round(seconds * MICRO)
        for name, station in self.meter.runners.items():
            devices = (f"gpu-{name}", f"gpu-{name}-2")
            moved = dict(zip(devices, microjoules, strict=False))
            station.sampler._events.append(CounterEvent("advance", self.now_us, moved))

    def post(self, *events, gateway="gw", places=(A,), received=0, address="10.0.0.1"):
        return self.meter.receive_batch(
            EventBatch(gateway, list(places), list(events), received), self.now_us, address
        )

    def serve(self, number, seconds=1, gateway="gw", places=(A,), backend=0):
        """A request from its beginning to its end."""
        who = {"gateway": gateway, "places": places}
        self.post(RequestBegin(number, 0, backend, 10, 100_000), **who)
        self.pass_seconds(seconds)
        self.post(
            RequestProgress(number, round(seconds * 5e5), 1), RequestEnd(number, 0, 20), **who
        )

    def settled(self, gateway="gw", places=(A,)):
        """What a gateway is told once all can be known."""
        self.pass_seconds(5)
        return self.post(gateway=gateway, places=places)

    def page(self):
        registry = CollectorRegistry()
        registry.register(MeterMetricsCollector(self.meter))
        return generate_latest(registry)
