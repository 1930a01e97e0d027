"""Every Prometheus metric of the gateway, defined once; the reference page is generated from here.

Labels come from configured names only. Children are bound once per label set and kept, so that
the hot path pays for an increment and not for a lookup by strings.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from backends.registry import Deployment
from gateway.scheduling.decision import Scored
from gateway.telemetry.record import Record

SECONDS_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600,
)  # fmt: skip
TOKEN_SECONDS_BUCKETS = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5,
)  # fmt: skip
JOULES_BUCKETS = (
    0.1, 0.3, 1, 3, 10, 30, 100, 200, 300, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 100_000,
)  # fmt: skip
DECISION_BUCKETS = (
    0.00001, 0.000025, 0.00005, 0.000075, 0.0001, 0.00015, 0.00025, 0.0005, 0.001, 0.0025, 0.01,
)  # fmt: skip

# `_created` series double the page and would clash where names differ by `_total` alone.
disable_created_metrics()  # type: ignore[no-untyped-call]

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)
_OK = 200
NO_MODEL = "none"
"""The `model` label of a request that reached no model."""


class Metrics:
    """The gateway's metrics on one registry; label sets are documented beside each."""

    def __init__(self, registry: CollectorRegistry, *, shared: bool = False) -> None:
        """With `shared` the values live in files that several workers add to."""
        self.registry = registry
        self._shared = shared

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"joulegate_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"joulegate_{name}", text, labels, registry=registry, buckets=buckets)

        def gauge(name: str, text: str, mode: Any, *labels: str) -> Gauge:
            return Gauge(
                f"joulegate_{name}", text, labels, registry=registry, multiprocess_mode=mode
            )

        self.requests = counter(
            "requests_total",
            "Requests answered, refused or abandoned (code 499)",
            "model", "requested", "code", "stream",
        )  # fmt: skip
        self.duration = histogram(
            "request_duration_seconds",
            "From the request's head to the end of its answer",
            SECONDS_BUCKETS,
            "model",
        )
        self.ttft = histogram(
            "time_to_first_token_seconds",
            "From the request's head to the first content of a streamed answer",
            SECONDS_BUCKETS,
            "model",
        )
        self.tpot = histogram(
            "time_per_output_token_seconds",
            "Mean time between the tokens of a streamed answer",
            TOKEN_SECONDS_BUCKETS,
            "model",
        )
        self.energy = histogram(
            "request_energy_joules",
            "Energy of a request, by how it was had",
            JOULES_BUCKETS,
            "model", "method",
        )  # fmt: skip
        self.energy_total = counter(
            "energy_joules_total", "Energy of requests, by how it was had", "model", "method"
        )
        self.predicted_duration = histogram(
            "predicted_duration_seconds",
            "What answered requests were predicted to take",
            SECONDS_BUCKETS,
            "model",
        )
        self.predicted_energy = histogram(
            "predicted_energy_joules",
            "What answered requests were predicted to cost",
            JOULES_BUCKETS,
            "model",
        )
        # The histogram beside it has the same name but for `_total`, which is no clash on the
        # wire, only to the registry's check; so it is registered without saying its names.
        self.predicted_energy_total = Counter(
            "joulegate_predicted_energy_joules_total",
            "Sum of what answered requests were predicted to cost",
            ("model",),
            registry=None,
        )
        registry.register(_Unnamed(self.predicted_energy_total))
        self.baseline_energy = counter(
            "baseline_energy_joules_total",
            "What the same requests were predicted to cost, had the most-accurate or the hungriest "
            "model that could serve answered each; savings are a difference of counters",
            "baseline",
        )
        self.predictions_floored = counter(
            "predictions_floored_total",
            "Predictions that came out at or below zero and were floored",
            "model",
        )
        self.tokens = counter(
            "tokens_total", "Tokens by type: prompt, cached (of the prompt), completion",
            "model", "type",
        )  # fmt: skip
        self.decisions = counter(
            "decisions_total",
            "Decisions by the model chosen; policy none: the caller named the model",
            "model", "policy", "preset",
        )  # fmt: skip
        self.decision_duration = histogram(
            "decision_duration_seconds",
            "Time to count tokens and decide",
            DECISION_BUCKETS,
        )
        self.exclusions = counter(
            "exclusions_total",
            "Candidates left out: capability, context, down, bound",
            "model", "reason",
        )  # fmt: skip
        self.backend_up = gauge(
            "backend_up",
            "1 while the backend may be sent requests",
            "livemin",
            "model", "backend",
        )  # fmt: skip
        self.backend_inflight = gauge(
            "backend_inflight",
            "Requests in flight to the backend",
            "livesum",
            "model", "backend",
        )  # fmt: skip
        self.backend_ejections = counter(
            "backend_ejections_total",
            "Times the backend was left alone after failing",
            "model", "backend",
        )  # fmt: skip
        self.retries = counter(
            "retries_total",
            "Attempts made because an earlier one failed, by that failure",
            "model", "reason",
        )  # fmt: skip
        self.disconnects = counter(
            "client_disconnects_total", "Clients that left before their answer was whole"
        )
        self.streams_broken = counter(
            "streams_broken_total",
            "Streams that ended in an error frame",
            "model", "reason",
        )  # fmt: skip
        self.profile_info = gauge(
            "profile_info", "1 for the profile version in force", "livemax", "model", "version"
        )
        self.profile_reloads = counter(
            "profile_reloads_total", "Profile changes seen, by result: adopted, refused", "result"
        )
        self.log_dropped = counter(
            "decision_log_dropped_total", "Decision log lines lost to a full or missing disk"
        )
        self._ejections_seen: dict[str, int] = {}
        self._versions: dict[str, str] = {}
        # Bound children, by label values; see `_bound`.
        self.request_count = _bound(self.requests)
        self.retry_count = _bound(self.retries)
        self.exclusion_count = _bound(self.exclusions)
        self.decision_count = _bound(self.decisions)
        self.broken_count = _bound(self.streams_broken)
        self.floored_count = _bound(self.predictions_floored)
        self._model = lru_cache(maxsize=1024)(_ModelChildren)
        self._most_accurate = self.baseline_energy.labels("most-accurate")
        self._hungriest = self.baseline_energy.labels("hungriest")
        for result in ("adopted", "refused"):
            self.profile_reloads.labels(result)

    def finished(self, record: Record) -> None:
        """Count one finished request; only whole answers enter the times and predictions."""
        model = record.model or NO_MODEL
        stream = "true" if record.stream else "false"
        self.request_count(model, record.requested, str(record.code), stream).inc()
        if not record.model:
            return
        of_model = self._model(self, model)
        of_model.spent(record)
        if record.code == _OK:
            of_model.answered(record)
            if record.decision is not None:
                candidates = record.decision.candidates
                self._most_accurate.inc(max(candidates, key=_accuracy).predicted_joules)
                self._hungriest.inc(max(scored.predicted_joules for scored in candidates))

    def publish_backends(self, deployments: Iterable[Deployment]) -> None:
        """Set the gauges of every backend to what is true now."""
        for deployment in deployments:
            for backend in deployment.backends:
                labels = (deployment.model, backend.label)
                self.backend_up.labels(*labels).set(0 if backend.ejected else 1)
                self.backend_inflight.labels(*labels).set(backend.inflight)
                seen = self._ejections_seen.get(backend.root, 0)
                self.backend_ejections.labels(*labels).inc(backend.ejections - seen)
                self._ejections_seen[backend.root] = backend.ejections

    def publish_profile(self, versions: dict[str, str]) -> None:
        """Say which profile version each model is predicted by."""
        for model, version in versions.items():
            old = self._versions.get(model)
            if old is not None and old != version:
                if self._shared:  # where prometheus_client cannot remove a child
                    self.profile_info.labels(model, old).set(0)
                else:
                    self.profile_info.remove(model, old)
            self.profile_info.labels(model, version).set(1)
        self._versions = dict(versions)


def _accuracy(scored: Scored) -> float:
    return scored.accuracy


class _Unnamed(Collector):
    """A collector that does not describe itself, so that its names are not compared."""

    def __init__(self, metric: MetricWrapperBase) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return self._metric.collect()


class _ModelChildren:
    """The children that every answered request of one model touches."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.duration = metrics.duration.labels(model)
        self.ttft = metrics.ttft.labels(model)
        self.tpot = metrics.tpot.labels(model)
        self.predicted_duration = metrics.predicted_duration.labels(model)
        self.predicted_energy = metrics.predicted_energy.labels(model)
        self.predicted_energy_total = metrics.predicted_energy_total.labels(model)
        self.prompt_tokens = metrics.tokens.labels(model, "prompt")
        self.cached_tokens = metrics.tokens.labels(model, "cached")
        self.completion_tokens = metrics.tokens.labels(model, "completion")
        self._metrics = metrics
        self._name = model
        self._energy: dict[str, tuple[Histogram, Counter]] = {}

    def spent(self, record: Record) -> None:
        """Count the tokens and joules of a request, whole or not."""
        if record.prompt_tokens:
            self.prompt_tokens.inc(record.prompt_tokens)
        if record.cached_tokens:
            self.cached_tokens.inc(record.cached_tokens)
        if record.completion_tokens:
            self.completion_tokens.inc(record.completion_tokens)
        if record.joules is not None and record.method is not None:
            histogram, total = self.energy(record.method)
            histogram.observe(record.joules)
            total.inc(record.joules)

    def answered(self, record: Record) -> None:
        """Count the times and predictions of a whole answer."""
        self.duration.observe(record.seconds)
        if record.ttft_seconds is not None:
            self.ttft.observe(record.ttft_seconds)
            tokens = record.completion_tokens
            if tokens is not None and tokens > 1:
                self.tpot.observe((record.seconds - record.ttft_seconds) / (tokens - 1))
        if record.predicted_seconds is not None and record.predicted_joules is not None:
            self.predicted_duration.observe(record.predicted_seconds)
            self.predicted_energy.observe(record.predicted_joules)
            self.predicted_energy_total.inc(record.predicted_joules)

    def energy(self, method: str) -> tuple[Histogram, Counter]:
        """Return the histogram and the counter of one way of having joules."""
        try:
            return self._energy[method]
        except KeyError:
            labels = (self._name, method)
            pair = (
                self._metrics.energy.labels(*labels),
                self._metrics.energy_total.labels(*labels),
            )
            self._energy[method] = pair
            return pair


def _bound(metric: _Metric) -> Callable[..., _Metric]:
    """Return `metric.labels` with its results kept; the label values are few by design."""
    return lru_cache(maxsize=4096)(metric.labels)
