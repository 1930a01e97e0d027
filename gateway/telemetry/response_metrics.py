"""The metrics of answered requests, by model: times, tokens, joules, and what was predicted."""

from collections.abc import Callable
from functools import cached_property, lru_cache

from prometheus_client import Counter, Histogram

from gateway.telemetry.buckets import JOULES_BUCKETS, SECONDS_BUCKETS, TOKEN_SECONDS_BUCKETS
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import UNANSWERED, RequestEnergy, ServedRequest


class ResponseMetrics:
    """The families; `for_model` gives one model's children, bound once."""

    def __init__(
        self,
        counter: Callable[..., Counter],
        histogram: Callable[..., Histogram],
    ) -> None:
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
        self.predicted_ttft = histogram(
            "predicted_time_to_first_token_seconds",
            "What streamed answers were predicted to take to their first content",
            SECONDS_BUCKETS,
            "model",
        )
        self.predicted_tpot = histogram(
            "predicted_time_per_output_token_seconds",
            "What streamed answers were predicted to take per further token",
            TOKEN_SECONDS_BUCKETS,
            "model",
        )
        self.energy = histogram(
            "request_energy_joules",
            "Energy of a request, by measurement method",
            JOULES_BUCKETS,
            "model", "method",
        )  # fmt: skip
        self.energy_total = counter(
            "energy_joules_total",
            "Energy of requests, by measurement method; idle and other are no request's",
            "model", "method", "tenant", "preset",
        )  # fmt: skip
        self.predicted_duration = histogram(
            "predicted_duration_seconds",
            "What answered requests were predicted to take",
            SECONDS_BUCKETS,
            "model",
        )
        self.predicted_energy = histogram(
            "request_predicted_energy_joules",
            "What answered requests were predicted to cost",
            JOULES_BUCKETS,
            "model",
        )
        self.predicted_energy_total = counter(
            "predicted_energy_joules_total",
            "Sum of what answered requests were predicted to cost",
            "model", "tenant", "preset",
        )  # fmt: skip
        self.tokens = counter(
            "tokens_total", "Tokens by type: prompt, cached (of the prompt), completion",
            "model", "type", "tenant", "preset",
        )  # fmt: skip
        self.co2e = counter(
            "co2e_grams_total",
            "Grams of CO2e of those joules, by the configured grid intensity",
            "model", "tenant", "preset",
        )  # fmt: skip
        self.for_model = lru_cache(maxsize=1024)(self._make_model_metrics)
        self.for_tenant = lru_cache(maxsize=16_384)(self._make_tenant_metrics)

    def _make_model_metrics(self, model: str) -> "ModelMetrics":
        return ModelMetrics(self, model)

    def _make_tenant_metrics(self, model: str, tenant: str, preset: str) -> "TenantMetrics":
        return TenantMetrics(self, model, tenant, preset)


class TenantMetrics:
    """The counters that say who spent it: one model, tenant and preset; never a histogram."""

    def __init__(self, families: "ResponseMetrics", model: str, tenant: str, preset: str) -> None:
        # Made as they are needed: idle energy has no tokens.
        self.tokens = lru_cache(maxsize=4)(
            lambda kind: families.tokens.labels(model, kind, tenant, preset)
        )
        self.energy_total = lru_cache(maxsize=16)(
            lambda method: families.energy_total.labels(model, method, tenant, preset)
        )
        self._families = families
        self._labels = (model, tenant, preset)

    @cached_property
    def predicted_energy_total(self) -> Counter:
        """The sum of predicted joules."""
        return self._families.predicted_energy_total.labels(*self._labels)

    @cached_property
    def co2e(self) -> Counter:
        """The grams."""
        return self._families.co2e.labels(*self._labels)

    def count_tokens(self, served: ServedRequest) -> None:
        """Count the tokens of a request, whole or not."""
        if served.prompt_tokens:
            self.tokens("prompt").inc(served.prompt_tokens)
        if served.cached_tokens:
            self.tokens("cached").inc(served.cached_tokens)
        if served.completion_tokens:
            self.tokens("completion").inc(served.completion_tokens)

    def count_energy(self, energy: RequestEnergy) -> None:
        """Count the joules and grams of a request, whole or not."""
        if energy.joules is not None and energy.method is not None:
            self.energy_total(energy.method).inc(energy.joules)
        if energy.co2e_grams:
            self.co2e.inc(energy.co2e_grams)


class ModelMetrics:
    """The histograms that every answered request of one model touches."""

    def __init__(self, families: "ResponseMetrics", model: str) -> None:
        self.duration = families.duration.labels(model)
        self.ttft = families.ttft.labels(model)
        self.tpot = families.tpot.labels(model)
        self.predicted_ttft = families.predicted_ttft.labels(model)
        self.predicted_tpot = families.predicted_tpot.labels(model)
        self.predicted_duration = families.predicted_duration.labels(model)
        self.predicted_energy = families.predicted_energy.labels(model)
        self._families = families
        self._name = model
        self._energy: dict[str, Histogram] = {}

    def observe_energy(self, energy: RequestEnergy) -> None:
        """Note the joules of a request, whole or not."""
        if energy.joules is None or energy.method is None:
            return
        histogram = self._energy.get(energy.method)
        if histogram is None:
            histogram = self._families.energy.labels(self._name, energy.method)
            self._energy[energy.method] = histogram
        histogram.observe(energy.joules)

    def observe_response(self, record: RequestRecord) -> None:
        """Count the times and predictions of a whole answer."""
        served, answered = record.served, record.answered or UNANSWERED
        self.duration.observe(record.seconds)
        if served.ttft_seconds is not None:
            self.ttft.observe(served.ttft_seconds)
            # Several answers come side by side: each gets its share of the tokens.
            tokens = (served.completion_tokens or 0) / record.sequences.total
            if tokens > 1:
                self.tpot.observe((record.seconds - served.ttft_seconds) / (tokens - 1))
            if answered.predicted_ttft_seconds is not None:
                self.predicted_ttft.observe(answered.predicted_ttft_seconds)
            if answered.predicted_tpot_seconds is not None:
                self.predicted_tpot.observe(answered.predicted_tpot_seconds)
        if answered.predicted_seconds is not None and answered.predicted_joules is not None:
            self.predicted_duration.observe(answered.predicted_seconds)
            self.predicted_energy.observe(answered.predicted_joules)
