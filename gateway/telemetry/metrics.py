"""Every Prometheus metric of the gateway, defined once; the reference page is generated from here.

Labels come from configured names only. Children are bound once per label set and kept, so that
the hot path pays for an increment and not for a lookup by strings.
"""

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

from gateway.telemetry.admission_metrics import AdmissionMetrics
from gateway.telemetry.baselines import BASELINES, find_baselines
from gateway.telemetry.batched_metrics import BatchedCounter, BatchedHistogram
from gateway.telemetry.buckets import DECISION_BUCKETS
from gateway.telemetry.config_metrics import ConfigMetrics
from gateway.telemetry.fleet_metrics import FleetMetrics
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
_OK = HTTPStatus.OK.value  # by itself an enum's member is looked up by a Python function
NO_PRESET = "none"
NO_MODEL = "none"
"""The `model` label of a request that reached no model."""


class GatewayMetrics:
    """The gateway's metrics on one registry; label sets are documented beside each."""

    def __init__(self, registry: CollectorRegistry, *, shared: bool = False) -> None:
        """With `shared` the values live in files that several workers add to."""
        self.registry = registry

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
        self.requests_held = make_gauge(
            "requests_held",
            "Requests that wait for the model's first backend: what wakes one scaled to none",
            "livesum",
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
        self.fleet = FleetMetrics(make_counter, make_gauge, shared=shared)
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
        if code == _OK:
            self.responses.for_model(model).observe_response(record)
            answered = record.answered
            if answered is not None and answered.predicted_joules is not None:
                of_tenant.predicted_energy_total.inc(answered.predicted_joules)
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


def _cache_labels(metric: _Metric) -> Callable[..., _Metric]:
    """Return `metric.labels` with its results kept; the label values are few by design."""
    return lru_cache(maxsize=4096)(metric.labels)
