"""What one process charges beyond accelerators: hosts, idle, PUE, CO2e and money, as series.

Every joule is counted once under its kind: of requests (failed attempts included, under the model
that was tried), idle, or other. Joules of accelerators come when they are final, a host's when an
attempt ends (in watts that its meter read at most about a second before, or the configured ones).
"""

import time
from collections.abc import Callable, Iterable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter

from backends.registry import Deployment
from gateway.telemetry.boundary import (
    JOULES_PER_KWH,
    BoundaryRates,
    HostEnergyShare,
    IdleRatio,
    RequestBoundary,
    convert_joules,
    draw_boundary,
)
from gateway.telemetry.carbon import CarbonIntensity
from gateway.telemetry.host_power import CONFIGURED
from gateway.telemetry.metered_hosts import MeteredHost, MeteredHosts
from gateway.telemetry.record import RequestRecord

REQUESTS = "requests"
IDLE = "idle"
KINDS = (REQUESTS, IDLE, "other")


class BoundaryMetrics:
    """The series; registered only where a boundary is configured."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def make_counter(name: str, text: str, *labels: str) -> Callable[..., Counter]:
            counter = Counter(f"joulegate_{name}", text, labels, registry=registry)
            return lru_cache(maxsize=4096)(counter.labels)

        self.host = make_counter(
            "host_energy_joules_total",
            "Energy of servers without accelerators, counted (rapl) or configured watts",
            "model", "kind", "source",
        )  # fmt: skip
        self.facility = make_counter(
            "facility_energy_joules_total",
            "Energy of accelerators and servers times the PUE: of requests, idle, other",
            "model", "kind",
        )  # fmt: skip
        self.co2e = make_counter(
            "facility_co2e_grams_total",
            "Grams of CO2e of the facility's joules, by the configured grid intensity",
            "model", "kind",
        )  # fmt: skip
        self.cost = make_counter(
            "cost_total",
            "Price of the facility's joules, in the currency of the label",
            "model", "kind", "currency",
        )  # fmt: skip


class HostShare:
    """One attempt's part of its server's watts, from its sending to its end."""

    __slots__ = ("_account", "_host", "_mark", "_model", "_record")

    def __init__(
        self,
        account: "BoundaryAccount",
        host: MeteredHost,
        mark: float,
        record: RequestRecord,
        model: str,
    ) -> None:
        self._account = account
        self._host = host
        self._mark = mark
        self._record = record
        self._model = model

    def read_share(self) -> HostEnergyShare:
        """Return what it has so far."""
        joules = self._host.clock.read_joules(self._mark, self._account.clock())
        return HostEnergyShare(joules, self._host.power.source)

    def end_share(self) -> None:
        """Count the joules; they are the record's until a later attempt of it ends."""
        joules = self._host.clock.end_request(self._mark, self._account.clock())
        source = self._host.power.source
        self._record.host = HostEnergyShare(joules, source)
        at = self._record.received.at
        self._account.add_host_joules(self._model, REQUESTS, joules, at, source)


class BoundaryAccount:
    """The boundary of one process of `processes` that share the servers' watts."""

    def __init__(
        self,
        rates: BoundaryRates,
        host_watts: float,
        deployments: Iterable[Deployment],
        registry: CollectorRegistry,
        *,
        carbon: CarbonIntensity | None = None,
        processes: int = 1,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._wall_clock = wall_clock
        self._rates = rates
        self._carbon = carbon
        self._metrics = BoundaryMetrics(registry)
        self._idle_ratios: dict[str, IdleRatio] = {}
        self._hosts = MeteredHosts((), host_watts / processes, clock())
        self.change_deployments(deployments)

    def change_deployments(self, deployments: Iterable[Deployment]) -> None:
        """Charge these from now on."""
        now, listed = self.clock(), list(deployments)
        self._hosts.change_deployments(listed, now)
        for deployment in listed:
            if deployment.model not in self._idle_ratios:
                self._idle_ratios[deployment.model] = IdleRatio(now)
                self._show_series(deployment.model)

    def begin_request(self, record: RequestRecord, model: str, backend: str) -> HostShare:
        """Count an attempt in at its server; whoever began it ends it, whatever its outcome."""
        host = self._hosts.find_host(backend)
        return HostShare(self, host, host.clock.begin_request(self.clock()), record, model)

    def close_request(self, record: RequestRecord) -> None:
        """Draw a settled request's lines and count its accelerators' joules."""
        energy, at = record.settled, record.received.at
        if energy is None:
            return
        for wasted in energy.wasted:
            if wasted.method is not None:
                self._count_joules(wasted.model, REQUESTS, wasted.joules, at)
        if energy.joules is None or not record.model:
            return
        self._count_joules(record.model, REQUESTS, energy.joules, at)
        record.boundary = self.draw_lines(record.model, energy.joules, record.host, at)

    def draw_lines(
        self, model: str, accelerator_joules: float, host: HostEnergyShare, at: float
    ) -> RequestBoundary:
        """Return the lines of a request of `model` that came at Unix time `at`; counts nothing."""
        ratio = self._idle_ratios[model].value
        return draw_boundary(accelerator_joules, host, ratio, self._rates_at(at))

    def add_unattributed_joules(self, model: str, kind: str, joules: float) -> None:
        """Count joules of accelerators that are no request's: idle, other."""
        self._count_joules(model, kind, joules, self._wall_clock())

    def collect_idle_joules(self) -> None:
        """Count what hosts drew while they served nobody; evenly over a host's backends."""
        now, at = self.clock(), self._wall_clock()
        for host in self._hosts:
            joules, source = host.clock.take_idle_joules(now), host.power.source
            for model in host.models if joules else ():
                self.add_host_joules(model, IDLE, joules / len(host.models), at, source)
        self._hosts.refresh_power(now)

    def add_host_joules(
        self, model: str, kind: str, joules: float, at: float, source: str = CONFIGURED
    ) -> None:
        """Count joules of a host, spent at Unix time `at`."""
        self._metrics.host(model, kind, source).inc(joules)
        self._count_joules(model, kind, joules, at)

    def _count_joules(self, model: str, kind: str, joules: float, at: float) -> None:
        """Count joules at the wall, whatever of the server drew them."""
        if kind == IDLE:
            self._idle_ratios[model].add_joules(self.clock(), idle=joules)
        else:
            self._idle_ratios[model].add_joules(self.clock(), used=joules)
        rates = self._rates_at(at)
        totals = convert_joules(joules, rates)
        self._metrics.facility(model, kind).inc(totals.joules)
        if totals.co2e_grams is not None:
            self._metrics.co2e(model, kind).inc(totals.co2e_grams)
        if totals.cost is not None:
            self._metrics.cost(model, kind, rates.currency).inc(totals.cost)

    def _rates_at(self, at: float) -> BoundaryRates:
        """Return the rates of a moment: the grid's intensity may go by the hour."""
        grams = None if self._carbon is None else self._carbon.to_grams(JOULES_PER_KWH, at)
        return self._rates._replace(grams_per_kwh=grams)

    def _show_series(self, model: str) -> None:
        """Show what may come as 0: a rate does not see a series that begins at 1."""
        for kind in KINDS:
            self._metrics.facility(model, kind)
            if self._carbon is not None:
                self._metrics.co2e(model, kind)
            if self._rates.currency is not None:
                self._metrics.cost(model, kind, self._rates.currency)
        for kind in (REQUESTS, IDLE):
            self._metrics.host(model, kind, CONFIGURED)


def begin_host_share(
    account: BoundaryAccount | None, record: RequestRecord, model: str, backend: str
) -> HostShare | None:
    """Count an attempt in at its server; None without a boundary."""
    return None if account is None else account.begin_request(record, model, backend)


def end_host_share(share: HostShare | None) -> None:
    """Count an attempt out."""
    if share is not None:
        share.end_share()
