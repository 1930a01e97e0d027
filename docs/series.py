"""The reference page of the metrics: what the code registers, gateway and meter."""

# ruff: noqa: INP001, SLF001 - a script's helper; metrics have no public accessor for these

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import reading
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import Histogram, MetricWrapperBase

from backends.meter.daemon import metrics as meter_metrics
from backends.meter.daemon.ledger_runner import LedgerSpec
from backends.meter.daemon.service import MeterService
from backends.meter.sources.simulated import SimulatorSource
from gateway.scheduling.switchback import Switchback
from gateway.telemetry.boundary_account import BoundaryMetrics
from gateway.telemetry.drift import DriftMetrics
from gateway.telemetry.experiment import ExperimentMetrics
from gateway.telemetry.exploration_metrics import ExplorationMetrics
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.ols_sums import SumsCollector


class Series(NamedTuple):
    """One metric as it is shown."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def wrapped() -> list[MetricWrapperBase]:
    """Return the gateway's metrics that the client library keeps."""
    registry = GatewayMetrics(CollectorRegistry()).registry
    DriftMetrics(registry, ())
    BoundaryMetrics(registry)
    ExperimentMetrics(registry, Switchback("experiment"), "")
    ExplorationMetrics(registry, ())
    # A collector that is no metric shows one as a counter under the name it has.
    return [
        one if isinstance(one, MetricWrapperBase) else vars(one)["_inner"]
        for one in registry._collector_to_names
    ]


def of_gateway() -> list[Series]:
    """Return every series of the gateway's own."""
    found = [
        Series(
            f"{metric._name}{'_total' if metric._type == 'counter' else ''}",
            "counter" if metric._name.endswith("_total") else str(metric._type),
            tuple(metric._labelnames),
            metric._documentation,
        )
        for metric in wrapped()
    ]
    return [*found, *_collected(SumsCollector(dict).collect())]


def of_meter() -> list[Series]:
    """Return every series of the meter."""
    meter = MeterService([LedgerSpec("", SimulatorSource())], hz=20.0)
    return _collected(meter_metrics.MeterMetricsCollector(meter).collect())


def _collected(families: Iterable[Metric]) -> list[Series]:
    return [
        Series(
            f"{family.name}_total" if family.type == "counter" else family.name,
            family.type,
            tuple(getattr(family, "_labelnames", ())),
            family.documentation,
        )
        for family in families
    ]


def metrics_page() -> Iterator[str]:
    """Every Prometheus series of the gateway and of the meter."""
    yield "# Metrics"
    yield (
        "What `GET /metrics` shows, in base units. Label values come from the configuration, never "
        "from a client."
    )
    for title, found in (("The gateway", of_gateway()), ("The meter", of_meter())):
        yield f"## {title}"
        yield reading.table(
            ("name", "type", "labels", "meaning"),
            (
                (
                    f"`{one.name}`",
                    one.kind,
                    ", ".join(f"`{label}`" for label in one.labels) or "none",
                    one.text,
                )
                for one in found
            ),
        )
    yield "## Histogram buckets"
    yield reading.table(
        ("name", "upper bounds"),
        (
            (f"`{metric._name}`", ", ".join(f"{bound:g}" for bound in metric._upper_bounds[:-1]))
            for metric in wrapped()
            if isinstance(metric, Histogram)
        ),
    )
