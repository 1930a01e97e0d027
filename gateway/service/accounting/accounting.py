"""What has finished, entered into metrics, recent requests and the log, off the requests' path.

A request is entered twice: all but its joules as soon as it is over, its joules once they are final
(a meter may take seconds to settle them). The log gets it with the second.
"""

import logging
from collections.abc import Callable, Sequence

from backends.meter.client.meter_client import MeterLink
from backends.meter.client.request_handle import Metered
from backends.registry import Deployment
from gateway.service.accounting.learning import Learning
from gateway.telemetry.carbon import Carbon
from gateway.telemetry.decision_log import DecisionLog
from gateway.telemetry.experiment import ExperimentMetrics
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recent import Recent
from gateway.telemetry.record import ESTIMATED, Record

_log = logging.getLogger("joulegate")


class Books:
    """Everything that is kept of requests by one process."""

    def __init__(
        self,
        metrics: Metrics,
        recent: Recent,
        deployments: Sequence[Deployment],
        *,
        decision_log: DecisionLog | None = None,
        meters: tuple[MeterLink, ...] = (),
        carbon: Carbon | None = None,
        learning: Learning | None = None,
        trace: Callable[[Record], None] | None = None,
        experiment: ExperimentMetrics | None = None,
    ) -> None:
        self.recent = recent
        self.meters = meters
        self._metrics = metrics
        self._decision_log = decision_log
        self._carbon = carbon
        self._learning = learning
        self._trace = trace
        self._experiment = experiment
        self._model_at = {
            backend.label: deployment.model
            for deployment in deployments
            for backend in deployment.backends
        }
        self._finished: list[Record] = []

    def add(self, record: Record) -> None:
        """Take a request that is over, to be entered when next settled."""
        self._finished.append(record)

    def settle(self) -> None:
        """Enter what has finished and what meters have settled; called often, and before reads."""
        finished, self._finished = self._finished, []
        for record in finished:
            try:
                self._metrics.finished(record)
                if self._experiment is not None:
                    self._experiment.count_request(record)
                self.recent.add(record)
                record.entered = True
                if not record.unsettled:
                    self._enter_joules(record)
            except Exception:  # noqa: BLE001 - one record must not cost the others
                _log.exception("request %s: a bug in its book-keeping", record.id)
        for link in self.meters:
            self._take(link)
        if self._learning is not None:
            self._learning.drift.publish()
        if self._experiment is not None:
            self._experiment.publish()

    def close(self) -> None:
        """Enter everything that is left; what no meter has settled by now stays estimated."""
        for link in self.meters:
            link.close()
        self.settle()

    def _take(self, link: MeterLink) -> None:
        """Enter what a meter has told."""
        settled, link.settled = link.settled, []
        for metered in settled:
            try:
                self._observed(metered)
            except Exception:  # noqa: BLE001 - one record must not cost the others
                _log.exception("meter %s: a bug in entering what it told", link.label)
        spendings, link.spendings = link.spendings, []
        for spending in spendings:
            model = self._model_at.get(spending.backend)
            if model is not None:
                joules = spending.microjoules / 1e6
                self._metrics.unattributed(model, spending.kind, joules)
                if self._experiment is not None:
                    self._experiment.count_unattributed(spending.kind, joules)

    def _observed(self, metered: Metered) -> None:
        if metered.owner is None:
            return
        record, target = metered.owner
        if metered.method != ESTIMATED:
            target.joules, target.method = metered.microjoules / 1e6, metered.method
        record.unsettled -= 1
        if record.entered and not record.unsettled:
            self._enter_joules(record)

    def _enter_joules(self, record: Record) -> None:
        """Enter a request's joules, which are final now, and let the log have it."""
        last = record.wasted[-1] if record.wasted else None
        if record.joules is None and last is not None and last.model == record.model:
            # Nobody got an answer: what the last attempt spent is what the request cost.
            record.joules, record.method = last.joules, last.method
            record.wasted.pop()
        if self._carbon is not None and record.joules is not None:
            record.co2e_grams = self._carbon.grams(record.joules, record.at)
        self._metrics.settled(record)
        if self._experiment is not None:
            self._experiment.count_energy(record)
        if self._learning is not None:
            self._learning.learn(record)
        if self._decision_log is not None:
            self._decision_log.add(record)
        if self._trace is not None:
            self._trace(record)
