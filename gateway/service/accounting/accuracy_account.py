"""Finished requests and their judgements, for who learns accuracy online; counted as they come."""

from gateway.service.request.accuracy_learning import AccuracyLearning, FeedbackHeard
from gateway.service.request.learnt import Learnt
from gateway.telemetry.exploration_metrics import ExplorationMetrics
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import RequestFeedback


class AccuracyAccount:
    """One process's; there only where accuracy is learnt."""

    def __init__(
        self, learnt: Learnt, learning: AccuracyLearning, metrics: ExplorationMetrics
    ) -> None:
        self._learnt = learnt
        self._learning = learning
        self._metrics = metrics

    def await_judgement(self, record: RequestRecord) -> None:
        """Count a finished request's draw, and keep what it teaches once it is judged."""
        planned = record.planned
        drawn = None if planned is None else planned.decision.exploration
        if planned is not None and drawn is not None and planned.decision.best_candidate:
            self._metrics.count_draw(planned.decision.best_candidate.model, drawn)
        self._learning.await_judgement(record)

    def take_feedback(self, feedback: RequestFeedback) -> bool:
        """Learn from a judgement; tell whether its request waited for one here."""
        known = self._learnt.hear(FeedbackHeard(feedback.id, feedback.score, feedback.at))
        self._metrics.count_judgement(known=known)
        return known

    def fade(self) -> None:
        """Forget as much as time says."""
        self._learning.fade()
