"""What each arm of a switchback served and spent: counters, and which arm is in force.

A request and its joules belong to the block in which it arrived, however late they come; idle and
other to the time in which they are told. What belongs to a washout belongs to nobody.
"""

import time
from collections.abc import Callable
from http import HTTPStatus
from math import isfinite

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.scheduling.switchback import ARMS, Switchback
from gateway.telemetry.record import RequestRecord

REQUEST = "request"
_KINDS = (REQUEST, "idle", "other")
_ARM = ("experiment", "arm")


class ExperimentMetrics:
    """The `joulegate_experiment_*` metrics; every arm has all of its series from the start."""

    def __init__(
        self,
        registry: CollectorRegistry,
        switchback: Switchback,
        baseline: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`baseline` says in words what the baseline's blocks get."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            name = f"joulegate_experiment_{name}_total"
            return Counter(name, text, (*_ARM, *labels), registry=registry)

        self._switchback = switchback
        self._clock = clock
        self._arm = Gauge(
            "joulegate_experiment_arm",
            "1 for the arm of the switchback that is in force",
            _ARM,
            registry=registry,
            multiprocess_mode="livemax",
        )
        info = Gauge(
            "joulegate_experiment_info",
            "1; the labels say how the experiment's time is cut and drawn",
            ("experiment", "seed", "block_seconds", "washout_seconds", "baseline"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._requests = counter("requests", "Routed requests answered whole")
        self._failures = counter("failures", "Routed requests that were not")
        self._tokens = counter("tokens", "Tokens of routed requests answered whole", "type")
        self._energy = counter(
            "energy_joules",
            "Joules of routed requests (retries and failures too), and idle and other meanwhile",
            "kind",
        )
        self._estimated = counter(
            "estimated_energy_joules",
            "Of the joules of routed requests, those that were predicted and not measured",
        )
        self._seconds = counter("duration_seconds", "Seconds of routed requests answered whole")
        self._accuracy = counter(
            "accuracy", "Sum of the profile's accuracy of the models that answered them"
        )
        name = switchback.name
        info.labels(
            name, str(switchback.seed), f"{switchback.block_seconds:g}",
            f"{switchback.washout_seconds:g}", baseline,
        ).set(1)  # fmt: skip
        for arm in ARMS:
            for family in (
                self._requests, self._failures, self._estimated, self._seconds, self._accuracy,
            ):  # fmt: skip
                family.labels(name, arm)
            for kind in ("prompt", "completion"):
                self._tokens.labels(name, arm, kind)
            for kind in _KINDS:
                self._energy.labels(name, arm, kind)
        self.publish()

    def publish(self) -> None:
        """Say which arm is in force now."""
        now = self._switchback.arm_in_force(self._clock())
        for arm in ARMS:
            self._arm.labels(self._switchback.name, arm).set(1 if arm == now else 0)

    def count_request(self, record: RequestRecord) -> None:
        """Count a request that is over, all but its joules."""
        arm, served, answered = record.target.arm, record.served, record.answered
        if arm is None:
            return
        labels = (self._switchback.name, arm)
        if record.outcome.code != HTTPStatus.OK:
            self._failures.labels(*labels).inc()
            return
        self._requests.labels(*labels).inc()
        self._seconds.labels(*labels).inc(record.seconds)
        self._tokens.labels(*labels, "prompt").inc(served.prompt_tokens or 0)
        self._tokens.labels(*labels, "completion").inc(served.completion_tokens or 0)
        if answered is not None and answered.option is not None:
            self._accuracy.labels(*labels).inc(answered.option.accuracy)

    def count_energy(self, record: RequestRecord) -> None:
        """Count a request's joules, now that they are final, and those of its failed attempts."""
        arm, energy = record.target.arm, record.settled
        if arm is None or energy is None:
            return
        labels = (self._switchback.name, arm)
        self._energy.labels(*labels, REQUEST).inc(energy.total_joules)
        self._estimated.labels(*labels).inc(energy.estimated_joules)

    def count_unattributed(self, kind: str, joules: float) -> None:
        """Count joules that no request answers for, as they are told."""
        arm = self._switchback.arm_at(self._clock())
        if arm is not None and kind in _KINDS and isfinite(joules):
            self._energy.labels(self._switchback.name, arm, kind).inc(joules)
