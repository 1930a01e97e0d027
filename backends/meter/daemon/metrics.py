"""The meter's metrics, read from the ledgers when they are scraped.

All of a page is of one instant: per ledger, the joules of its devices are those of requests, idle,
other and unsettled together, to the microjoule (as long as a float holds it: 9e9 J).
"""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from backends.meter.daemon.counter import MICRO
from backends.meter.daemon.service import MeterService


class MeterMetricsCollector(Collector):
    """Every series of a meter."""

    def __init__(self, meter: MeterService) -> None:
        self._meter = meter

    def collect(self) -> Iterator[Metric]:
        """Return all metrics as they are now."""
        self._meter.apply_counter_events()
        yield from self._collect_device_metrics()
        yield from self._collect_ledger_metrics()
        yield from self._collect_host_metrics()
        events = CounterMetricFamily(
            "joulegate_meter_events", "Events received from gateways", labels=["kind"]
        )
        for kind, count in self._meter.events.items():
            events.add_metric([kind], count)
        yield events
        yield from self._collect_admission_metrics()
        yield CounterMetricFamily(
            "joulegate_meter_dropped_answers",
            "Messages to gateways dropped because they were not fetched in time",
            value=self._meter.dropped_messages,
        )

    def _collect_host_metrics(self) -> Iterator[Metric]:
        energy = CounterMetricFamily(
            "joulegate_meter_host_energy_joules",
            "What a counter of the server without its accelerators advanced by; in no ledger",
            labels=["device"],
        )
        up = GaugeMetricFamily(
            "joulegate_meter_host_up",
            "1 while the server's own counters can be read; else gateways use configured watts",
            labels=["source"],
        )
        if (host := self._meter.host) is not None:
            up.add_metric([host.source.kind], int(host.is_up))
            for device, microjoules in host.microjoules_by_device.items():
                energy.add_metric([device], microjoules / MICRO)
        yield from (up, energy)

    def _collect_admission_metrics(self) -> Iterator[Metric]:
        admission = self._meter.admission
        refused = CounterMetricFamily(
            "joulegate_meter_refused_events",
            "Events of gateways that asked for too much room, or that were suspended",
            labels=["reason"],
        )
        for reason in ("open_requests", "token_counts", "unknown_request", "suspended", "voided"):
            refused.add_metric([reason], admission.quotas.refused[reason])
        clipped = CounterMetricFamily(
            "joulegate_meter_clipped_tokens",
            "Tokens claimed beyond what is physical or what the backend counted",
            labels=["type"],
        )
        for kind in ("prompt", "generated"):
            clipped.add_metric([kind], admission.clipped_tokens[kind])
        disputed = CounterMetricFamily(
            "joulegate_meter_disputes",
            "Readings of a backend's counters by which gateways claimed more than there was",
            labels=["ledger"],
        )
        for name in self._meter.runners:
            disputed.add_metric([name], admission.disputes[name])
        suspensions = CounterMetricFamily(
            "joulegate_meter_suspensions",
            "Gateways suspended for a minute because they claimed what cannot be",
            value=admission.suspensions,
        )
        yield from (refused, clipped, disputed, suspensions)

    def _collect_device_metrics(self) -> Iterator[Metric]:
        energy = CounterMetricFamily(
            "joulegate_meter_energy_joules",
            "What a device's counter advanced by",
            labels=["device"],
        )
        period = GaugeMetricFamily(
            "joulegate_meter_counter_period_seconds",
            "How often a device's counter is updated, as found at start",
            labels=["device"],
        )
        info = GaugeMetricFamily(
            "joulegate_meter_source_info",
            "1 for the source that a device is read through",
            labels=["device", "source"],
        )
        errors = CounterMetricFamily(
            "joulegate_meter_source_errors",
            "Readings that failed; of a ledger while it has no device",
            labels=["device"],
        )
        joules: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for station in self._meter.runners.values():
            joules.update(station.microjoules_by_device)
            failed.update(dict(station.sampler.errors))
            for counter in station.sampler.counters:
                if counter.period_us is not None:
                    period.add_metric([counter.device.id], counter.period_us / MICRO)
                info.add_metric([counter.device.id, station.source.kind], 1)
                failed[counter.device.id] += 0
        for device, microjoules in joules.items():
            energy.add_metric([device], microjoules / MICRO)
        for device, count in failed.items():
            errors.add_metric([device], count)
        yield from (energy, period, info, errors)

    def _collect_ledger_metrics(self) -> Iterator[Metric]:
        attributed = CounterMetricFamily(
            "joulegate_meter_attributed_joules",
            "Settled energy by what used it: requests, idle, other",
            labels=["ledger", "kind"],
        )
        unsettled = GaugeMetricFamily(
            "joulegate_meter_unsettled_joules",
            "Energy counted and not yet settled",
            labels=["ledger"],
        )
        up = GaugeMetricFamily(
            "joulegate_meter_counter_up",
            "1 while a ledger's counters can be read; else joules are estimated, /health says why",
            labels=["ledger"],
        )
        idle_watts = GaugeMetricFamily(
            "joulegate_meter_idle_watts",
            "Mean power over the last minute of idle time",
            labels=["ledger"],
        )
        open_ = GaugeMetricFamily(
            "joulegate_meter_requests_open", "Requests not yet settled", labels=["ledger"]
        )
        late = CounterMetricFamily(
            "joulegate_meter_late_events",
            "Events that arrived after their time was settled",
            labels=["ledger"],
        )
        dropped = CounterMetricFamily(
            "joulegate_meter_dropped_events",
            "Events refused because a bound was reached, or without a begin event of their request",
            labels=["ledger"],
        )
        for name, station in self._meter.runners.items():
            ledger = station.ledger
            up.add_metric([name], int(station.has_counters))
            attributed.add_metric([name, "request"], ledger.attributed_microjoules / MICRO)
            attributed.add_metric([name, "idle"], ledger.idle_microjoules / MICRO)
            attributed.add_metric([name, "other"], ledger.other_microjoules / MICRO)
            unsettled.add_metric([name], ledger.unsettled_microjoules / MICRO)
            if station.idle_watts is not None:
                idle_watts.add_metric([name], station.idle_watts)
            open_.add_metric([name], ledger.open_requests)
            late.add_metric([name], ledger.late_events)
            dropped.add_metric([name], ledger.dropped_events)
        yield from (up, attributed, unsettled, idle_watts, open_, late, dropped)
