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
        events = CounterMetricFamily(
            "joulegate_meter_events", "Events taken from gateways", labels=["kind"]
        )
        for kind, count in self._meter.events.items():
            events.add_metric([kind], count)
        yield events
        yield CounterMetricFamily(
            "joulegate_meter_dropped_answers",
            "Settled energies that no gateway fetched in time",
            value=self._meter.dropped_messages,
        )

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
            "Settled energy by whom it was spent on",
            labels=["ledger", "kind"],
        )
        unsettled = GaugeMetricFamily(
            "joulegate_meter_unsettled_joules",
            "Energy counted and not yet attributed",
            labels=["ledger"],
        )
        idle_watts = GaugeMetricFamily(
            "joulegate_meter_idle_watts",
            "Mean power of the last minute's worth of idle time",
            labels=["ledger"],
        )
        open_ = GaugeMetricFamily(
            "joulegate_meter_requests_open", "Requests not yet settled", labels=["ledger"]
        )
        late = CounterMetricFamily(
            "joulegate_meter_late_events",
            "Events of a time that was settled before they came",
            labels=["ledger"],
        )
        dropped = CounterMetricFamily(
            "joulegate_meter_dropped_events",
            "Events refused for want of room, or whose request's beginning never came",
            labels=["ledger"],
        )
        for name, station in self._meter.runners.items():
            ledger = station.ledger
            attributed.add_metric([name, "request"], ledger.attributed_microjoules / MICRO)
            attributed.add_metric([name, "idle"], ledger.idle_microjoules / MICRO)
            attributed.add_metric([name, "other"], ledger.other_microjoules / MICRO)
            unsettled.add_metric([name], ledger.unsettled_microjoules / MICRO)
            if station.idle_watts is not None:
                idle_watts.add_metric([name], station.idle_watts)
            open_.add_metric([name], ledger.open_requests)
            late.add_metric([name], ledger.late_events)
            dropped.add_metric([name], ledger.dropped_events)
        yield from (attributed, unsettled, idle_watts, open_, late, dropped)
