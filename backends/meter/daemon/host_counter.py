"""What a server draws without its accelerators, counted beside the ledgers and told to gateways.

Rules:
- What a reading shows is divided among the gateways by their open requests, evenly where none has
  any, to the microjoule; before first contact with a gateway it is attributed to none.
- Each share comes with the time that it was counted over, so that a gateway knows the power too.
- While a ledger reads the CPU's counter itself nothing is told: it would be counted twice.
"""

from collections.abc import Callable, Sequence
from typing import Any

from backends.meter.clock import clock_us
from backends.meter.daemon.gateway_session import GatewaySession
from backends.meter.daemon.sampler import CounterSampler
from backends.meter.protocol import HostEnergy
from backends.meter.sources.source import EnergySource

_NAME = "host"


class HostCounter:
    """The host's counters and what they have advanced by. Times are clock.clock_us()."""

    def __init__(self, source: EnergySource, clock: Callable[[], int] = clock_us) -> None:
        self.source = source
        self.sampler = CounterSampler(_NAME, source, hz=1.0, clock=clock)
        self.microjoules_by_device: dict[str, int] = {}
        self.told = True
        """Whether gateways are told, which a ledger that reads the same counter forbids."""
        self._counted_us: int | None = None

    @property
    def is_up(self) -> bool:
        """Whether its counters can be read."""
        return bool(self.sampler.counters)

    def apply_counter_events(self, gateways: Sequence[GatewaySession]) -> None:
        """Divide what the counters have advanced by among these gateways."""
        for event in self.sampler.take_events():
            if event.kind != "advance":
                self._counted_us = event.at_us if event.kind == "start" else None
                continue
            for device, microjoules in event.microjoules.items():
                total = self.microjoules_by_device.get(device, 0) + microjoules
                self.microjoules_by_device[device] = total
            if self._counted_us is not None and self.told:
                span_us = event.at_us - self._counted_us
                share_energy(sum(event.microjoules.values()), span_us, gateways)
            self._counted_us = event.at_us

    def read_share(self, gateway: GatewaySession) -> HostEnergy | None:
        """Return what a gateway has been given so far; None where nothing is counted."""
        if not (self.told and self.is_up):
            return None
        return HostEnergy(self.source.kind, gateway.host_microjoules, gateway.host_us)

    def describe_health(self) -> dict[str, Any]:
        """Return what /health says of it."""
        return {
            "source": self.source.kind,
            "counting": self.is_up,
            "told": self.told,
            "devices": [counter.device.id for counter in self.sampler.counters],
            "last_error": self.sampler.last_error,
        }


def share_energy(microjoules: int, span_us: int, gateways: Sequence[GatewaySession]) -> None:
    """Divide an interval's energy by open requests, or evenly; the shares sum to it exactly."""
    present = [gateway for gateway in gateways if not gateway.vanished]
    if not present:
        return
    weights = [gateway.open_requests for gateway in present]
    if not any(weights):
        weights = [1] * len(present)
    whole, given, passed = sum(weights), 0, 0
    for gateway, weight in zip(present, weights, strict=True):
        passed += weight
        upto = microjoules * passed // whole
        gateway.host_microjoules += upto - given
        gateway.host_us += span_us
        given = upto
