"""What exploring does and costs, for Prometheus; there only where accuracy is learnt online."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter

from gateway.scheduling.decision import Exploration


class ExplorationMetrics:
    """The `joulegate_exploration_*` metrics; all series are there from the start."""

    def __init__(self, registry: CollectorRegistry, models: Iterable[str]) -> None:
        def make_counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"joulegate_{name}_total", text, labels, registry=registry)

        self._requests = make_counter(
            "exploration_requests",
            "Requests for which a model was drawn that did not look best, by that model",
            "model",
        )
        self._answers = make_counter(
            "exploration_answers_lost",
            "Right answers that exploring was expected to cost, as charged to its budget",
        )
        self._joules = make_counter(
            "exploration_energy_joules",
            "Joules that exploring was expected to add, as charged to its budget",
        )
        self._judgements = make_counter(
            "accuracy_judgements",
            "Judgements by what became of them: learnt, or unknown here (too late, or another "
            "worker's)",
            "result",
        )
        for model in models:
            self._requests.labels(model)
        self._results = {
            known: self._judgements.labels("learnt" if known else "unknown")
            for known in (True, False)
        }

    def count_draw(self, model: str, exploration: Exploration) -> None:
        """Count one draw, which put `model` first."""
        if exploration.explored:
            self._requests.labels(model).inc()
        self._answers.inc(exploration.answers_lost)
        self._joules.inc(exploration.joules_added)

    def count_judgement(self, *, known: bool) -> None:
        """Count a judgement."""
        self._results[known].inc()
