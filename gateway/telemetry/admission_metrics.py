"""Admission as metrics: how many are served and wait, how long, and who was refused why."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from gateway.telemetry.buckets import SECONDS_BUCKETS

REFUSALS = ("queue_full", "too_late", "timed_out")


class AdmissionMetrics:
    """The series, on the gateway's registry."""

    def __init__(
        self,
        make_counter: Callable[..., Counter],
        make_gauge: Callable[..., Gauge],
        make_histogram: Callable[..., Histogram],
    ) -> None:
        self.running = make_gauge(
            "admission_running_requests", "Requests that were admitted and are served", "livesum"
        )
        self.waiting = make_gauge(
            "admission_waiting_requests", "Requests that wait to be admitted", "livesum"
        )
        self.limit = make_gauge(
            "admission_limit_requests", "limits.max_running; 0: there is none", "livesum"
        )
        self.wait_seconds = make_histogram(
            "admission_wait_seconds", "Waits of the requests that had to wait", SECONDS_BUCKETS
        )
        self._refused = make_counter(
            "admission_refused_requests_total",
            "Requests refused with 429: queue_full, too_late (could not be served in its time), "
            "timed_out (waited for nothing)",
            "reason",
        )
        for reason in REFUSALS:
            self._refused.labels(reason)

    def count_refusal(self, reason: str) -> None:
        """Count a request that was refused."""
        self._refused.labels(reason).inc()
