"""Backends and meters as metrics: read off what they are, for whoever scrapes next."""

import math
from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge

from backends.meter.client.meter_client import MeterLink
from backends.registry import Deployment


class FleetMetrics:
    """The series, on the gateway's registry."""

    def __init__(
        self,
        make_counter: Callable[..., Counter],
        make_gauge: Callable[..., Gauge],
        *,
        shared: bool,
    ) -> None:
        """`shared`: as the gateway's metrics are."""
        self._shared = shared
        self.backend_up = make_gauge(
            "backend_up",
            "1 while the backend may be sent requests",
            "livemin",
            "model", "backend",
        )  # fmt: skip
        self.backend_drained = make_gauge(
            "backend_drained",
            "1 while the backend is drained by hand: nothing new is sent there",
            "livemax",
            "model", "backend",
        )  # fmt: skip
        self.backend_inflight = make_gauge(
            "backend_inflight",
            "Requests in flight to the backend",
            "livesum",
            "model", "backend",
        )  # fmt: skip
        self.backends_idle = make_gauge(
            "backends_idle",
            "Backends of the model that may be sent requests and have none: what packing leaves "
            "free, or a deployment that is too large",
            "livemin",
            "model",
        )
        self.backend_ejections = make_counter(
            "backend_ejections_total",
            "Times the backend was ejected",
            "model", "backend",
        )  # fmt: skip
        self.meter_up = make_gauge(
            "meter_up", "1 while the meter answers; without it joules are estimated",
            "livemin", "meter",
        )  # fmt: skip
        self.unmetered = make_counter(
            "unmetered_requests_total",
            "Requests that a meter should have measured and did not, so that they are estimated",
            "meter",
        )
        self._unmetered_seen: dict[str, int] = {}
        self._ejections_seen: dict[tuple[str, str], int] = {}

    def publish_backends(self, deployments: Iterable[Deployment]) -> None:
        """Set the gauges of every backend to what is true now."""
        idle: dict[str, int] = {}
        for deployment in deployments:
            free = sum(
                1
                for one in deployment.backends
                if one.is_available and not sum(one.running_and_queued)
            )
            idle[deployment.model] = idle.get(deployment.model, 0) + free
            for backend in deployment.backends:
                labels = (deployment.model, backend.label)
                self.backend_up.labels(*labels).set(1 if deployment.is_served_by(backend) else 0)
                self.backend_drained.labels(*labels).set(int(backend.drained))
                self.backend_inflight.labels(*labels).set(backend.inflight)
                seen = self._ejections_seen.get(labels, 0)
                self.backend_ejections.labels(*labels).inc(backend.ejections - seen)
                self._ejections_seen[labels] = backend.ejections
        for model, count in idle.items():
            self.backends_idle.labels(model).set(count)

    def forget_backend(self, model: str, backend: str) -> None:
        """Show no more of a backend that has left the configuration."""
        for gauge in (self.backend_up, self.backend_drained, self.backend_inflight):
            self._forget_child(gauge, model, backend)

    def forget_meter(self, meter: str) -> None:
        """Show no more of a meter that has left the configuration."""
        self._forget_child(self.meter_up, meter)

    def _forget_child(self, gauge: Gauge, *labels: str) -> None:
        if self._shared:  # where prometheus_client cannot remove a child
            gauge.labels(*labels).set(math.nan)
        elif labels in gauge._metrics:  # noqa: SLF001 - nothing public tells
            gauge.remove(*labels)

    def publish_meters(self, links: Iterable[MeterLink]) -> None:
        """Say which meters answer, and count what was not measured."""
        for link in links:
            self.meter_up.labels(link.label).set(1 if link.last_exchange_ok else 0)
            seen = self._unmetered_seen.get(link.label, 0)
            self.unmetered.labels(link.label).inc(link.unmeasured_requests - seen)
            self._unmetered_seen[link.label] = link.unmeasured_requests
