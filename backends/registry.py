"""Backends: load, availability, circuit breaking.

                   `after_failures` failures in a row,
                   or a failed probe before it was ever seen healthy
        +---------+ -----------------------------------> +---------+
        | HEALTHY |                                      | EJECTED | <----------+
        +---------+                                      +---------+            |
             ^                                                |                 |
             |               its time is over, or a probe succeeds              |
             |                                                v                 |
             |  a response, or a stream's first content  +-----------+  failure |
             +------------------------------------------ | HALF-OPEN | ---------+
                                                         +-----------+
                                                   one request at a time (the trial)

Rules: each ejection in a row lasts twice as long as the one before, up to a maximum; failures of
requests sent before an ejection do not prolong it; after a stream's first content one more failure
ejects again, until a whole response came.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from backends.bearer import build_bearer
from backends.http.url import RequestUrl, TlsFiles, parse_request_url
from backends.meter.client.request_handle import BackendMeter
from backends.worker_table import SharedBackend, SharedEjection

_log = logging.getLogger("joulegate.backends")

_MAX_GAUGE_REQUESTS = 1e6  # a gauge above it is broken


@dataclass(frozen=True, slots=True)
class EjectionPolicy:
    """How many failures eject a backend, and for how long (seconds)."""

    after_failures: int = 5
    first_seconds: float = 30.0
    max_seconds: float = 300.0


class Backend:
    """One vLLM server and what this process knows of it. Times are monotonic-clock seconds."""

    __slots__ = (
        "_clock",
        "_ejection",
        "_ejection_serial",
        "_ejection_streak",
        "_failures",
        "_half_open_at",
        "_other_requests",
        "_prompt_tokens",
        "_queue_reading",
        "_running_seconds",
        "_seen_at",
        "_seen_total",
        "_shared",
        "_since",
        "_tls",
        "_trial_in_flight",
        "cache_usage",
        "ejections",
        "headers",
        "inflight",
        "label",
        "meter",
        "proven_healthy",
        "root",
        "urls",
    )  # fmt: skip

    def __init__(
        self,
        root: str,
        *,
        api_key: str | None = None,
        tls: TlsFiles | None = None,
        ejection: EjectionPolicy = EjectionPolicy(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self._tls = tls
        parts = urlsplit(root)
        self.label = parts.netloc + parts.path
        self.headers = {"Authorization": build_bearer(api_key)} if api_key else {}
        self.urls: dict[str, RequestUrl] = {}
        self.meter: BackendMeter | None = None
        self.inflight = 0
        self.ejections = 0
        self.proven_healthy = False
        self.cache_usage = 0.0
        """Share of the KV cache that was in use when last looked at."""
        self._shared: SharedBackend | None = None
        self._prompt_tokens = 0
        self._other_requests = 0
        self._seen_at: float | None = None
        self._seen_total = 0
        self._queue_reading: tuple[int, int] | None = None
        self._ejection = ejection
        self._clock = clock
        self._failures = 0
        self._ejection_streak = 0
        self._ejection_serial = 0
        self._half_open_at: float | None = None
        self._trial_in_flight = False
        self._running_seconds = 0.0
        self._since = clock()

    def build_url(self, path: str) -> RequestUrl:
        """Return the address of `path` on this server; parsed once."""
        try:
            return self.urls[path]
        except KeyError:
            self.urls[path] = self.parse_url(path)
            return self.urls[path]

    def parse_url(self, path: str) -> RequestUrl:
        """Return the address of a `path` that is seldom asked for: it is not kept."""
        return parse_request_url(self.root + path, self._tls)

    def share(self, shared: SharedBackend) -> None:
        """Count with the other workers of this host from now on."""
        self._shared = shared
        self.adopt_ejection()

    @property
    def sent_requests(self) -> int:
        """This gateway's requests in flight there: `inflight`, and those of its other workers."""
        return self.inflight if self._shared is None else self._shared.inflight.total

    @property
    def prompt_tokens(self) -> int:
        """Tokens sent there by this gateway and not yet answered by a first token."""
        return self._prompt_tokens if self._shared is None else self._shared.prompt_tokens.total

    def add_prompt_tokens(self, count: int) -> None:
        """Count a prompt in, or out where `count` is negative."""
        self._prompt_tokens += count
        if self._shared is not None:
            self._shared.prompt_tokens.set(self._prompt_tokens)

    @property
    def running_and_queued(self) -> tuple[int, int]:
        """How many it runs now and how many wait there: this gateway's, and others' it has shown.

        A queue that was seen grows by what has been sent since.
        """
        sent = self.sent_requests
        total = sent + self._other_requests
        if self._queue_reading is None:
            return total, 0
        waiting, own = self._queue_reading
        queued = min(total, max(0, waiting + sent - own))
        return total - queued, queued

    @property
    def last_seen(self) -> tuple[int, int, float]:
        """What the gauges showed: others' requests, all requests, and how many seconds ago."""
        if self._seen_at is None:
            return 0, 0, 0.0
        return self._other_requests, self._seen_total, max(0.0, self._clock() - self._seen_at)

    def record_gauges(
        self,
        running: float | None,
        waiting: float | None,
        *,
        own: int,
        cache_usage: float | None = None,
    ) -> None:
        """Note what vLLM's gauges show, and how many of those were `own`; None: nothing."""
        self.running_seconds()
        self._seen_at = self._clock()
        self.cache_usage = min(max(cache_usage or 0.0, 0.0), 1.0)
        runs, waits = (
            round(min(max(gauge or 0.0, 0.0), _MAX_GAUGE_REQUESTS)) for gauge in (running, waiting)
        )
        self._other_requests = max(0, runs + waits - own)
        self._seen_total = self._other_requests + own
        self._queue_reading = (waits, own) if waits else None

    def running_seconds(self) -> float:
        """Return the requests that it has run so far, times how long each ran.

        The difference of two calls over the time between them is the mean number running.
        """
        now = self._clock()
        self._running_seconds += self.running_and_queued[0] * (now - self._since)
        self._since = now
        return self._running_seconds

    @property
    def is_ejected(self) -> bool:
        """Whether it is ejected or half-open: not readmitted since its last ejection."""
        return self._half_open_at is not None

    @property
    def is_available(self) -> bool:
        """Whether a request may be sent there now."""
        return self._half_open_at is None or (
            not self._trial_in_flight
            and self._clock() >= self._half_open_at
            and (self._shared is None or not self._shared.trials.elsewhere)
        )

    def begin_request(self) -> int:
        """Count a request in.

        Returns 0, or the number of the ejection whose trial this is: the one request that a
        half-open backend lets through.
        """
        self.running_seconds()
        self._count_inflight(1)
        if self._half_open_at is None:
            return 0
        self._mark_trial(in_flight=True)
        return self._ejection_serial

    def end_request(self, *, trial: int = 0) -> None:
        """Count a request out, whatever its outcome; `trial` is what `begin_request` gave."""
        self.running_seconds()
        self._count_inflight(-1)
        # A trial may outlast its ejection; it must not end the next one's.
        if trial and trial == self._ejection_serial:
            self._mark_trial(in_flight=False)

    def record_first_content(self) -> None:
        """Note a stream's first content: it readmits the backend, which has yet to finish one."""
        self.proven_healthy = True
        if self._half_open_at is not None:
            self._end_ejection()
            self._failures = self._ejection.after_failures - 1

    def record_success(self) -> None:
        """Note a complete response, which readmits the backend."""
        self.proven_healthy = True
        self._failures = 0
        if self._half_open_at is not None:
            self._end_ejection()
        elif self._ejection_streak:
            self._ejection_streak = 0

    def record_failure(self, why: str = "") -> None:
        """Note a failure that is the server's own."""
        self._failures += 1
        if self._half_open_at is None:
            if self._failures >= self._ejection.after_failures:
                self._eject_backend(why)
        elif self._clock() >= self._half_open_at:
            self._eject_backend(why)

    def record_probe(self, *, well: bool, why: str = "") -> None:
        """Note the result of a health probe."""
        if well:
            self.proven_healthy = True
            if self._half_open_at is not None:
                self._half_open_at = min(self._half_open_at, self._clock())
        elif self._half_open_at is None and not self.proven_healthy:
            # Never seen well: waiting for five failures would only cost clients time.
            self._eject_backend(why)
        elif self._half_open_at is None:
            self.record_failure(why)

    def adopt_ejection(self) -> None:
        """Eject or readmit it where another worker has; to be called now and then."""
        news = None if self._shared is None else self._shared.read_news()
        if news is None:
            return
        if news.half_open_at is None and self._half_open_at is not None:
            _log.info("backend %s readmitted by another worker", self.label)
        elif news.half_open_at is not None:
            _log.info("backend %s ejected by another worker", self.label)
            self._ejection_serial += 1
        self._half_open_at = news.half_open_at
        self._ejection_streak = news.streak
        self._failures = 0
        self._mark_trial(in_flight=False)

    def _count_inflight(self, by: int) -> None:
        self.inflight += by
        if self._shared is not None:
            self._shared.inflight.set(self.inflight)

    def _mark_trial(self, *, in_flight: bool) -> None:
        self._trial_in_flight = in_flight
        if self._shared is not None:
            self._shared.trials.set(int(in_flight))

    def _tell_workers(self) -> None:
        if self._shared is not None:
            told = SharedEjection(self._half_open_at, self._ejection_streak)
            self._shared.post_ejection(told)

    def _end_ejection(self) -> None:
        _log.info("backend %s readmitted", self.label)
        self._half_open_at = None
        self._mark_trial(in_flight=False)
        self._tell_workers()

    def _eject_backend(self, why: str) -> None:
        seconds = min(
            self._ejection.first_seconds * 2.0**self._ejection_streak, self._ejection.max_seconds
        )
        _log.warning("backend %s ejected for up to %g s: %s", self.label, seconds, why)
        self._half_open_at = self._clock() + seconds
        self._ejection_streak = min(self._ejection_streak + 1, 16)
        self._failures = 0
        self._mark_trial(in_flight=False)
        self.ejections += 1
        self._ejection_serial += 1
        self._tell_workers()


class Deployment:
    """One model on one kind of hardware: its backends and what they call the model."""

    __slots__ = ("_random", "backends", "label", "model", "served_name")

    def __init__(
        self,
        model: str,
        label: str,
        served_name: str,
        backends: Sequence[Backend],
        *,
        rng: random.Random,
    ) -> None:
        self.model = model
        self.label = label
        self.served_name = served_name
        self.backends = tuple(backends)
        self._random = rng

    def find(self, label: str) -> Backend | None:
        """Return the backend of this label; None where it is no longer one."""
        return next((backend for backend in self.backends if backend.label == label), None)

    def pick_backend(self, tried: Iterable[Backend] = ()) -> Backend | None:
        """Choose the less busy of two usable backends drawn at random; None where none is left."""
        if len(self.backends) == 1:
            only = self.backends[0]
            return only if only.is_available and only not in tried else None
        usable = [b for b in self.backends if b not in tried and b.is_available]
        if len(usable) > 2:  # noqa: PLR2004 - the power of two choices
            usable = self._random.sample(usable, 2)
        elif not usable:
            return None
        if len(usable) == 1:
            return usable[0]
        first, second = usable
        busy, busier = sum(first.running_and_queued), sum(second.running_and_queued)
        if busy == busier:
            return usable[self._random.getrandbits(1)]
        return first if busy < busier else second
