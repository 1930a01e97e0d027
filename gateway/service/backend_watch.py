"""Probes and gauges of the backends in force, begun anew when these change."""

import asyncio

from backends.client import BackendClient
from backends.gauges import GaugePoller
from backends.health import HealthProber
from backends.registry import Backend
from gateway.config import HealthConfig


class BackendWatch:
    """Background work that watches a set of backends until closed."""

    def __init__(self, client: BackendClient, times: HealthConfig) -> None:
        self._client = client
        self._times = times
        self._tasks: list[asyncio.Task[None]] = []

    def watch_backends(self, backends: list[Backend]) -> None:
        """Watch these, and no others, from now on."""
        self.cancel_tasks()
        times = self._times
        prober = HealthProber(
            self._client,
            backends,
            ejected_period_seconds=times.probe_seconds,
            healthy_period_seconds=times.idle_probe_seconds,
            timeout_seconds=times.probe_timeout_seconds,
        )
        gauges = GaugePoller(
            self._client,
            backends,
            seconds=times.load_seconds,
            timeout_seconds=times.probe_timeout_seconds,
        )
        self._tasks = [asyncio.create_task(work.run()) for work in (prober, gauges)]

    def cancel_tasks(self) -> list[asyncio.Task[None]]:
        """Watch nothing any more; return what is being cancelled."""
        for task in self._tasks:
            task.cancel()
        return self._tasks
