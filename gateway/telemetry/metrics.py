"""Every Prometheus metric of the gateway, defined once; the reference page is generated from here.

Labels come from configured names only. Children are bound once per label set and kept, so that
the hot path pays for an increment and not for a lookup by strings.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.metrics import MetricWrapperBase

from backends.meter.client.meter_client import MeterLink
from backends.registry import Deployment
from gateway.telemetry.admission_metrics import AdmissionMetrics
from gateway.telemetry.baselines import BASELINES, find_baselines
from gateway.telemetry.batched_metrics import BatchedCounter, BatchedHistogram
from gateway.telemetry.buckets import DECISION_BUCKETS
from gateway.telemetry.config_metrics import ConfigMetrics
from gateway.telemetry.profile_metrics import ProfileMetrics
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import NO_TENANT, PlannedRequest, RequestEnergy
from gateway.telemetry.response_metrics import ResponseMetrics

# `_created` series double the page.
disable_created_metrics()  # type: ignore[no-untyped-call]

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)
EXCLUSIONS = ("capability", "context", "down", "full", "bound")
FAILURES = (
    "unreachable", "connection_lost", "silent", "bad_answer", "rate_limited", "status_4xx",
    "status_5xx",
)  # fmt: skip
BREAK_REASONS = ("connection_lost", "bad_answer", "oversized", "status_5xx", "stalled", "draining")
NO_PRESET = "none"
NO_MODEL = "none"
"""The `model` label of a request that reached no model."""


class GatewayMetrics:
    """The gateway's metrics on one registry; label sets are documented beside each."""

    def __init__(self, registry: CollectorRegistry, *, shared: bool = False) -> None:
        """With `shared` the values live in files that several workers add to."""
        self.registry = registry
        self._shared = shared

        def make_counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"joulegate_{name}", text, labels, registry=registry)

        def make_batched(name: str, text: str, *labels: str) -> Counter:
            return BatchedCounter(f"joulegate_{name}", text, labels, registry=registry)

        def make_histogram(
            name: str, text: str, buckets: Sequence[float], *labels: str
        ) -> Histogram:
            return BatchedHistogram(
                f"joulegate_{name}", text, labels, registry=registry, buckets=buckets
            )

        def make_gauge(name: str, text: str, mode: Any, *labels: str) -> Gauge:
            return Gauge(
                f"joulegate_{name}", text, labels, registry=registry, multiprocess_mode=mode
            )

        self.requests = make_batched(
            "requests_total",
            "Requests answered, refused or abandoned (code 499)",
            "model", "requested", "code", "stream", "tenant",
        )  # fmt: skip
        self.responses = ResponseMetrics(make_batched, make_histogram)
        self.baseline_energy = make_batched(
            "baseline_energy_joules_total",
            "What routed requests were predicted to cost as chosen, and had the most-accurate, the "
            "cheapest or the hungriest model that could serve answered each; savings are a "
            "difference of these",
            "baseline", "tenant", "preset",
        )  # fmt: skip
        self.predictions_floored = make_batched(
            "predictions_floored_total",
            "Predictions that came out at or below zero and were floored",
            "model",
        )
        self.decisions = make_batched(
            "decisions_total",
            "Decisions by the model chosen; policy none: the caller named the model",
            "model", "policy", "preset",
        )  # fmt: skip
        self.decision_duration = make_histogram(
            "decision_duration_seconds",
            "Time to count tokens and decide",
            DECISION_BUCKETS,
        )
        self.exclusions = make_batched(
            "exclusions_total",
            "Candidates excluded, by reason: capability, context, down, full, bound",
            "model", "reason",
        )  # fmt: skip
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
        self.requests_held = make_gauge(
            "requests_held",
            "Requests that wait for the model's first backend: what wakes one scaled to none",
            "livesum",
            "model",
        )
        self.backends_idle = make_gauge(
            "backends_idle",
            "Backends of the model that may be sent requests and have none: what packing leaves "
            "free, or a deployment that is too large",
            "livemin",
            "model",
        )
        self.reference_load = make_gauge(
            "reference_load_requests",
            "Requests beside one, as a mean over the fleet's requests of the last ten minutes: the "
            "load at which models' joules are compared",
            "livemax",
        )
        self.energy_price = make_gauge(
            "energy_price_weight",
            "What the energy budget adds to the weight of energy: 0 while less is spent",
            "livemax",
        )
        self.backend_ejections = make_counter(
            "backend_ejections_total",
            "Times the backend was ejected",
            "model", "backend",
        )  # fmt: skip
        self.retries = make_counter(
            "retries_total",
            "Attempts made because an earlier one failed, by that failure",
            "model", "reason",
        )  # fmt: skip
        self.disconnects = make_counter(
            "client_disconnects_total",
            "Clients that disconnected before their response was complete",
        )
        self.streams_broken = make_counter(
            "streams_broken_total",
            "Streams that ended in an error frame",
            "model", "reason",
        )  # fmt: skip
        self.config = ConfigMetrics(make_counter, make_gauge)
        self.admission = AdmissionMetrics(make_counter, make_gauge, make_histogram)
        self.profile = ProfileMetrics(make_counter, make_gauge, shared=shared)
        self.log_dropped = make_counter(
            "decision_log_dropped_total", "Decision log lines lost to a full or missing disk"
        )
        self.access_log_dropped = make_counter(
            "access_log_dropped_total", "Access log lines lost to a full or missing disk"
        )
        self.key_reloads = make_counter(
            "key_reloads_total", "Changes of the API keys' file, by result: adopted, refused",
            "result",
        )  # fmt: skip
        self.key_store_errors = make_counter(
            "key_store_errors_total",
            "Times that the store of budgets did not answer, by what came of it: requests admitted "
            "or refused, settlements delayed or lost",
            "consequence",
        )
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
        # Bound children, by label values; see `_cache_labels`.
        self.request_count = _cache_labels(self.requests)
        self.retry_count = _cache_labels(self.retries)
        self.exclusion_count = _cache_labels(self.exclusions)
        self.decision_count = _cache_labels(self.decisions)
        self.broken_count = _cache_labels(self.streams_broken)
        self.floored_count = _cache_labels(self.predictions_floored)
        self._baseline_series = lru_cache(maxsize=4096)(self._make_baseline_series)

    def initialise_series(self, models: Iterable[str]) -> None:
        """Show what may come as 0: a rate does not see a series that begins at 1."""
        for model in models:
            self.floored_count(model)
            for reason in EXCLUSIONS:
                self.exclusion_count(model, reason)
            for reason in FAILURES:
                self.retry_count(model, reason)
            for reason in BREAK_REASONS:
                self.broken_count(model, reason)

    def count_finished_request(self, record: RequestRecord) -> None:
        """Count one finished request; only complete responses count in times and predictions."""
        planned, code = record.planned, record.outcome.code
        if planned is not None:
            self._count_decision(planned, record.target.preset)
        model, tenant = record.model, record.tenant or NO_TENANT
        stream = "true" if record.parsed.stream else "false"
        labels = (model or NO_MODEL, record.target.requested, str(code), stream, tenant)
        self.request_count(*labels).inc()
        if not model:
            return
        preset = record.target.preset
        of_tenant = self.responses.for_tenant(model, tenant, preset)
        of_tenant.count_tokens(record.served)
        if code == HTTPStatus.OK:
            self.responses.for_model(model).observe_response(record)
            predicted = record.answered and record.answered.predicted_joules
            if predicted is not None:
                of_tenant.predicted_energy_total.inc(predicted)
            baselines = find_baselines(record)
            if baselines is not None:
                for series, joules in zip(
                    self._baseline_series(tenant, preset), baselines, strict=True
                ):
                    series.inc(joules)

    def count_energy(
        self, model: str, energy: RequestEnergy, tenant: str | None = None, preset: str = NO_PRESET
    ) -> None:
        """Count the joules of a request to `model`, "" where it reached none."""
        tenant = tenant or NO_TENANT
        for wasted in energy.wasted:
            if wasted.method is not None:
                of_tenant = self.responses.for_tenant(wasted.model, tenant, preset)
                of_tenant.energy_total(wasted.method).inc(wasted.joules)
        if model:
            self.responses.for_model(model).observe_energy(energy)
            self.responses.for_tenant(model, tenant, preset).count_energy(energy)

    def count_unattributed_energy(self, model: str, kind: str, joules: float) -> None:
        """Count unattributed joules of a model's backends: idle, other."""
        self.responses.for_tenant(model, NO_TENANT, NO_PRESET).energy_total(kind).inc(joules)

    def _make_baseline_series(self, tenant: str, preset: str) -> tuple[Counter, ...]:
        return tuple(self.baseline_energy.labels(name, tenant, preset) for name in BASELINES)

    def _count_decision(self, planned: PlannedRequest, preset: str) -> None:
        decision = planned.decision
        self.decision_duration.observe(planned.decision_seconds)
        for out in decision.excluded:
            self.exclusion_count(out.model, out.code).inc()
        for scored in decision.candidates:
            if scored.floored:
                self.floored_count(scored.model).inc()
        if decision.best_candidate is not None:
            self.decision_count(decision.best_candidate.model, decision.policy, preset).inc()

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


def _cache_labels(metric: _Metric) -> Callable[..., _Metric]:
    """Return `metric.labels` with its results kept; the label values are few by design."""
    return lru_cache(maxsize=4096)(metric.labels)
