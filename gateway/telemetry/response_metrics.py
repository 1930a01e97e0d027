"""The metrics of answered requests, by model: times, tokens, joules, and what was predicted."""

from collections.abc import Callable, Iterable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from gateway.telemetry.buckets import JOULES_BUCKETS, SECONDS_BUCKETS, TOKEN_SECONDS_BUCKETS
from gateway.telemetry.record import RequestRecord

PREDICTED_ENERGY_TOTAL = "joulegate_predicted_energy_joules_total"


class ResponseMetrics:
    """The families; `of` gives one model's children, bound once."""

    def __init__(
        self,
        registry: CollectorRegistry,
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
        # A counter goes by its name without `_total`, in the registry and in the files of several
        # workers; that is the histogram's name here, and the two would be merged. As a gauge it
        # keeps its whole name, and `Recast` shows it for the counter that it is.
        self.predicted_energy_total = Gauge(
            PREDICTED_ENERGY_TOTAL,
            "Sum of what answered requests were predicted to cost",
            ("model",),
            registry=None,
            multiprocess_mode="sum",
        )
        registry.register(GaugeAsCounter(self.predicted_energy_total))
        self.tokens = counter(
            "tokens_total", "Tokens by type: prompt, cached (of the prompt), completion",
            "model", "type",
        )  # fmt: skip
        self.co2e = counter(
            "co2e_grams_total",
            "Grams of CO2e of those joules, by the configured grid intensity",
            "model",
        )
        self.for_model = lru_cache(maxsize=1024)(self._make_model_metrics)

    def _make_model_metrics(self, model: str) -> "ModelMetrics":
        return ModelMetrics(self, model)


class ModelMetrics:
    """The children that every answered request of one model touches."""

    def __init__(self, families: "ResponseMetrics", model: str) -> None:
        self.duration = families.duration.labels(model)
        self.ttft = families.ttft.labels(model)
        self.tpot = families.tpot.labels(model)
        self.predicted_ttft = families.predicted_ttft.labels(model)
        self.predicted_tpot = families.predicted_tpot.labels(model)
        self.predicted_duration = families.predicted_duration.labels(model)
        self.predicted_energy = families.predicted_energy.labels(model)
        self.predicted_energy_total = families.predicted_energy_total.labels(model)
        self.prompt_tokens = families.tokens.labels(model, "prompt")
        self.cached_tokens = families.tokens.labels(model, "cached")
        self.completion_tokens = families.tokens.labels(model, "completion")
        self.co2e = families.co2e.labels(model)
        self._families = families
        self._name = model
        self._energy: dict[str, tuple[Histogram, Counter]] = {}

    def count_tokens(self, record: RequestRecord) -> None:
        """Count the tokens of a request, whole or not."""
        if record.prompt_tokens:
            self.prompt_tokens.inc(record.prompt_tokens)
        if record.cached_tokens:
            self.cached_tokens.inc(record.cached_tokens)
        if record.completion_tokens:
            self.completion_tokens.inc(record.completion_tokens)

    def count_energy(self, record: RequestRecord) -> None:
        """Count the joules of a request, whole or not."""
        if record.joules is not None and record.method is not None:
            histogram, total = self.get_energy_series(record.method)
            histogram.observe(record.joules)
            total.inc(record.joules)
        if record.co2e_grams:
            self.co2e.inc(record.co2e_grams)

    def observe_response(self, record: RequestRecord) -> None:
        """Count the times and predictions of a whole answer."""
        self.duration.observe(record.seconds)
        if record.ttft_seconds is not None:
            self.ttft.observe(record.ttft_seconds)
            tokens = record.completion_tokens
            if tokens is not None and tokens > 1:
                self.tpot.observe((record.seconds - record.ttft_seconds) / (tokens - 1))
            if record.predicted_ttft_seconds is not None:
                self.predicted_ttft.observe(record.predicted_ttft_seconds)
            if record.predicted_tpot_seconds is not None:
                self.predicted_tpot.observe(record.predicted_tpot_seconds)
        if record.predicted_seconds is not None and record.predicted_joules is not None:
            self.predicted_duration.observe(record.predicted_seconds)
            self.predicted_energy.observe(record.predicted_joules)
            self.predicted_energy_total.inc(record.predicted_joules)

    def get_energy_series(self, method: str) -> tuple[Histogram, Counter]:
        """Return the histogram and the counter of one way of having joules."""
        try:
            return self._energy[method]
        except KeyError:
            labels = (self._name, method)
            pair = (
                self._families.energy.labels(*labels),
                self._families.energy_total.labels(*labels),
            )
            self._energy[method] = pair
            return pair


class GaugeAsCounter(Collector):
    """Shows what `inner` collects, with the gauge `PREDICTED_ENERGY_TOTAL` made a counter."""

    def __init__(self, inner: Collector) -> None:
        self._inner = inner

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        for family in self._inner.collect():
            if family.name == PREDICTED_ENERGY_TOTAL:
                recast = Metric(family.name.removesuffix("_total"), family.documentation, "counter")
                recast.samples = family.samples
                yield recast
            else:
                yield family
