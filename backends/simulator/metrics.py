"""The simulator's /metrics: vLLM's names and labels, so that whatever reads vLLM reads this."""

from bisect import bisect_left
from itertools import accumulate

from backends.simulator.engine import BatchingEngine
from backends.simulator.engine_request import RequestCost
from backends.vllm import metric_names

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FINISH_REASONS = ("stop", "length", "abort")
# vLLM's own buckets, in seconds.
_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_E2E = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
    240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip


class DurationHistogram:
    """Counts of durations in seconds by bucket."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe_seconds(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class SimulatorMetrics:
    """Counters of one simulated server; times are wall seconds, as a scraper's are."""

    def __init__(self, model: str, speed: float) -> None:
        escaped = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        self._labels = f'engine="0",model_name="{escaped}"'
        self._speed = speed
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished = dict.fromkeys(FINISH_REASONS, 0)
        self.first_token = DurationHistogram(_TTFT)
        self.whole_request = DurationHistogram(_E2E)

    def record_end(self, truth: RequestCost, finish_reason: str) -> None:
        """Count a request that the engine is done with."""
        self.finished[finish_reason if finish_reason in self.finished else "stop"] += 1
        if truth.tokens_out:
            self.first_token.observe_seconds(truth.first_token_seconds / self._speed)
        if not truth.aborted:
            self.whole_request.observe_seconds(truth.seconds / self._speed)

    def render_text(self, engine: BatchingEngine) -> str:
        """All of it in Prometheus' text format."""
        lines: list[str] = []
        own = self._labels
        for name, kind, text, samples in (
            (metric_names.REQUESTS_RUNNING, "gauge", "Requests in execution.",
             [(own, engine.running_requests)]),
            (metric_names.REQUESTS_WAITING, "gauge", "Requests that wait to be processed.",
             [(own, engine.waiting_requests)]),
            (metric_names.KV_CACHE_USAGE, "gauge", "KV cache usage, 1 is all of it.",
             [(own, engine.kv_usage)]),
            (metric_names.PROMPT_TOKENS, "counter", "Prefill tokens processed.",
             [(own, self.prompt_tokens)]),
            (metric_names.PROMPT_TOKENS_BY_SOURCE, "counter", "Prefill tokens by source.",
             [(f'{own},source="{metric_names.COMPUTED_SOURCE}"', self.prompt_tokens)]),
            (metric_names.GENERATION_TOKENS, "counter", "Generation tokens processed.",
             [(own, self.generation_tokens)]),
            (metric_names.REQUEST_SUCCESS, "counter", "Requests processed, by how they ended.",
             [(f'{own},finished_reason="{why}"', n) for why, n in self.finished.items()]),
            ("simulator_energy_joules_total", "counter", "Simulated energy, idling included.",
             [(own, engine.microjoules / 1e6)]),
            ("simulator_idle_joules_total", "counter", "Simulated energy while nothing ran.",
             [(own, engine.idle_microjoules / 1e6)]),
        ):  # fmt: skip
            _append_header(lines, name, kind, text)
            lines.extend(f"{name}{{{labels}}} {value}" for labels, value in samples)
        self._append_histogram(
            lines, metric_names.TIME_TO_FIRST_TOKEN, "Time to first token.", self.first_token
        )
        self._append_histogram(
            lines, metric_names.REQUEST_LATENCY, "Whole request.", self.whole_request
        )
        return "\n".join(lines) + "\n"

    def _append_histogram(
        self, lines: list[str], name: str, text: str, histogram: DurationHistogram
    ) -> None:
        _append_header(lines, name, "histogram", text)
        bounds = [*map(str, histogram.bounds), "+Inf"]
        total = 0
        for bound, total in zip(bounds, accumulate(histogram.counts), strict=True):
            lines.append(f'{name}_bucket{{{self._labels},le="{bound}"}} {total}')
        lines.append(f"{name}_sum{{{self._labels}}} {histogram.sum}")
        lines.append(f"{name}_count{{{self._labels}}} {total}")


def _append_header(lines: list[str], name: str, kind: str, text: str) -> None:
    lines.append(f"# HELP {name} {text}")
    lines.append(f"# TYPE {name} {kind}")
