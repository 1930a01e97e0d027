"""Processes finished requests in the background: metrics, recent requests, decision log.

A request is processed twice: all but its joules soon after it is over, its joules once they are
final (a meter may take seconds to settle them). The decision log gets it with the second. A few at
a time, because those of a tenth of a second at once would hold the event loop for 20 ms.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from backends.meter.client.meter_client import MeterLink
from backends.meter.method import ESTIMATED
from backends.registry import Deployment
from gateway.scheduling.energy_price import EnergyPrice
from gateway.service.accounting.accuracy_account import AccuracyAccount
from gateway.service.accounting.impact import ImpactEstimator
from gateway.service.accounting.learning import TrafficLearner
from gateway.service.callers.spending import KeySpending
from gateway.telemetry.access_log import AccessLine
from gateway.telemetry.batched_metrics import publish_batch
from gateway.telemetry.boundary_account import BoundaryAccount
from gateway.telemetry.carbon import CarbonIntensity
from gateway.telemetry.decision_log import DecisionLog
from gateway.telemetry.experiment import ExperimentMetrics
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.recent import RecentRequests
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import RequestFeedback

_log = logging.getLogger("joulegate")

_MOST_AT_ONCE: Final = 64
"""Finished requests that wait for the next flush: 5 ms of work, and 16 at once cost 2% more."""


class RequestAccounting:
    """Finished requests of one process, and where their figures go."""

    def __init__(
        self,
        metrics: GatewayMetrics,
        recent: RecentRequests,
        deployments: Sequence[Deployment],
        *,
        decision_log: DecisionLog | None = None,
        access_log: DecisionLog | None = None,
        meters: tuple[MeterLink, ...] = (),
        carbon: CarbonIntensity | None = None,
        learning: TrafficLearner | None = None,
        trace: Callable[[RequestRecord], None] | None = None,
        boundary: BoundaryAccount | None = None,
        experiment: ExperimentMetrics | None = None,
        price: EnergyPrice | None = None,
        spending: KeySpending | None = None,
        accuracy: AccuracyAccount | None = None,
    ) -> None:
        self._spending = spending
        self.recent = recent
        self.meters = meters
        self._metrics = metrics
        self._price = price
        self._accuracy = accuracy
        self._decision_log = decision_log
        self.access_log = access_log
        self._carbon = carbon
        self._learning = learning
        self._trace = trace
        self._boundary = boundary
        self.impact = ImpactEstimator(boundary, carbon)
        self._experiment = experiment
        self._model_at: dict[str, str] = {}
        self.change_deployments(deployments)
        self._finished: list[RequestRecord] = []

    def change_deployments(self, deployments: Sequence[Deployment]) -> None:
        """Enter joules of no request under these models from now on."""
        self._model_at = {}
        for deployment in deployments:
            for backend in deployment.backends:
                # Of several models at one address the first has what belongs to none of them.
                self._model_at.setdefault(backend.label, deployment.model)

    def add_record(self, record: RequestRecord) -> None:
        """Queue a finished request for the next flush, or until a few have come together.

        The next turn of its conversation may come before that.
        """
        self._finished.append(record)
        if record.served.cached_tokens is not None and self._learning is not None:
            self._learning.note_prefix(record)
        if len(self._finished) >= _MOST_AT_ONCE:
            self._process_finished()

    def flush(self) -> None:
        """Process finished requests and new observations; called often, and before reads."""
        self._process_finished()
        for link in self.meters:
            self._ingest_observations(link)
        if self._boundary is not None:
            self._boundary.collect_idle_joules()
        if self._learning is not None:
            self._learning.drift.publish_metrics()
        if self._experiment is not None:
            self._experiment.publish()
        publish_batch()
        if self._accuracy is not None:
            self._accuracy.fade()

    def _process_finished(self) -> None:
        finished, self._finished = self._finished, []
        for record in finished:
            try:
                self._metrics.count_finished_request(record)
                if self._experiment is not None:
                    self._experiment.count_request(record)
                if self._accuracy is not None:
                    self._accuracy.await_judgement(record)
                self.recent.add_record(record)
                record.call_when_final(self._finalize_energy)
            except Exception:  # noqa: BLE001 - one record must not cost the others
                _log.exception("request %s: a bug in accounting it", record.id)

    def add_feedback(self, feedback: RequestFeedback) -> bool:
        """Note what is said of an answer; tell whether its request is known here.

        It goes into the decision log in any case: another worker may have served the request.
        """
        self.flush()
        record = self.recent.get_record(feedback.id, feedback.tenant)
        if record is not None:
            record.feedback = feedback
        if self._decision_log is not None:
            self._decision_log.add_record(feedback)
        learnt = self._accuracy is not None and self._accuracy.take_feedback(feedback)
        return record is not None or learnt

    @property
    def keeps_log(self) -> bool:
        """Whether there is a decision log."""
        return self._decision_log is not None

    def close(self) -> None:
        """Flush what is left; joules that no meter has settled by now stay estimated."""
        for link in self.meters:
            link.close()
        self.flush()

    def _ingest_observations(self, link: MeterLink) -> None:
        """Apply the observations of one meter."""
        settled, link.finished_attempts = link.finished_attempts, []
        for metered in settled:
            try:
                if metered.on_energy is not None:
                    known = metered.method != ESTIMATED or metered.unseen
                    metered.on_energy(metered.microjoules if known else 0, metered.method)
            except Exception:  # noqa: BLE001 - one record must not cost the others
                _log.exception("meter %s: a bug in applying an observation", link.label)
        spendings, link.unattributed_energy = link.unattributed_energy, []
        for spending in spendings:
            model = self._model_at.get(spending.backend)
            if model is not None:
                joules = spending.microjoules / 1e6
                self._metrics.count_unattributed_energy(model, spending.kind, joules)
                if self._boundary is not None:
                    self._boundary.add_unattributed_joules(model, spending.kind, joules)
                if self._experiment is not None:
                    self._experiment.count_unattributed(spending.kind, joules)

    def _finalize_energy(self, record: RequestRecord) -> None:
        """Count a request's joules, which are final now, and write its decision log line."""
        energy = record.settle_energy(None if self._carbon is None else self._carbon.to_grams)
        if self._boundary is not None:
            self._boundary.close_request(record)
        self._metrics.count_energy(record.model, energy, record.tenant, record.target.preset)
        if self._spending is not None:
            self._spending.settle_request(record)
        if self._price is not None:
            self._price.spend(energy.total_joules)
        if self._experiment is not None:
            self._experiment.count_energy(record)
        if self._learning is not None:
            self._learning.learn_from(record)
        if self._decision_log is not None:
            self._decision_log.add_record(record)
        if self.access_log is not None:
            self.access_log.add_record(AccessLine(record))
        if self._trace is not None:
            self._trace(record)
