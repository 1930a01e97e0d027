"""What /metrics shows: this process's values, or the sum over the workers of one gateway."""

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from gateway.telemetry import SHARED_DIR
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.ols_sums import OlsSums, SharedSums, SumsCollector


def make_scrape_registry(
    metrics: GatewayMetrics, sums: OlsSums, shared: SharedSums | None
) -> CollectorRegistry:
    """Return the registry that /metrics shows: this process's, or the sum over the workers."""
    if shared is not None:
        registry = CollectorRegistry()
        registry.register(_WorkersCollector())
        registry.register(SumsCollector(shared.sum_workers))
        return registry
    metrics.registry.register(SumsCollector(sums.snapshot_sums))
    ProcessCollector(registry=metrics.registry)
    PlatformCollector(registry=metrics.registry)
    GCCollector(registry=metrics.registry)
    return metrics.registry


class _WorkersCollector(Collector):
    """The sum over the workers that live; the counters of those that died are kept."""

    def __init__(self) -> None:
        self._files = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        self._folder = Path(os.environ[SHARED_DIR])

    def collect(self) -> Iterable[Metric]:
        """Return the families, without the gauges of workers that are no more."""
        for file in self._folder.glob("gauge_live*_*.db"):
            pid = file.stem.rpartition("_")[2]
            if not Path(f"/proc/{pid}").exists():
                mark_process_dead(int(pid))  # type: ignore[no-untyped-call]
        families: Iterable[Metric] = self._files.collect()  # type: ignore[no-untyped-call]
        return families
