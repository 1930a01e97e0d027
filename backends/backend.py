"""One vLLM server as this process knows it: its load, its availability, what it asked for itself.

Rules: a backend that sent `Retry-After` is not asked before that is over where another can serve;
where none can it is asked by one request at a time. Circuit breaking: `circuit_breaker`.
"""

import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from backends.bearer import build_bearer
from backends.circuit_breaker import DEFAULT_EJECTION, CircuitBreaker, EjectionPolicy
from backends.http.url import RequestUrl, TlsFiles, parse_request_url
from backends.meter.client.request_handle import BackendMeter
from backends.worker_table import SharedBackend

_log = logging.getLogger("joulegate.backends")

_MAX_GAUGE_REQUESTS = 1e6  # a gauge above it is broken

WAIT_TRIAL: Final = -1
"""What `begin_request` gives to the one request that is let through within a `Retry-After`."""


class LoadIntegral(NamedTuple):
    """Integrals over time: of the requests running, and of 1 over them (1 where there are none).

    A step of the engine costs its own part whoever is in it, and they share that equally: what a
    request bears of it is the mean of 1/n, which is more than 1 over the mean of n.
    """

    running_seconds: float = 0.0
    share_seconds: float = 0.0


class Backend(CircuitBreaker):
    """One vLLM server and what this process knows of it. Times are monotonic-clock seconds."""

    __slots__ = (
        "_other_requests",
        "_prompt_tokens",
        "_queue_reading",
        "_running_seconds",
        "_seen_at",
        "_seen_total",
        "_share_seconds",
        "_since",
        "_tls",
        "_wait_trial_in_flight",
        "_wait_until",
        "cache_usage",
        "drained",
        "groups",
        "has_peers",
        "headers",
        "inflight",
        "meter",
        "root",
        "urls",
        "wait_status",
    )

    def __init__(
        self,
        root: str,
        *,
        api_key: str | None = None,
        tls: TlsFiles | None = None,
        ejection: EjectionPolicy = DEFAULT_EJECTION,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(root)
        super().__init__(parts.netloc + parts.path, ejection, clock)
        self.root = root
        self._tls = tls
        self.headers = {"Authorization": build_bearer(api_key)} if api_key else {}
        self.urls: dict[str, RequestUrl] = {}
        self.meter: BackendMeter | None = None
        self.groups: tuple[tuple[Backend, ...], ...] = ()
        """For each model served here, all backends that serve it."""
        self.drained = False
        """Whether it is drained by hand: it gets nothing new, and what runs there ends there."""
        self.has_peers = True
        """Whether another backend serves one of its models, as far as is known."""
        self.inflight = 0
        self._prompt_tokens = 0
        self.cache_usage = 0.0
        """Share of the KV cache that was in use when last looked at."""
        self.wait_status = 0
        """The HTTP status that came with the last `Retry-After`."""
        self._wait_until: float | None = None
        self._wait_trial_in_flight = False
        self._other_requests = 0
        self._seen_at: float | None = None
        self._seen_total = 0
        self._queue_reading: tuple[int, int] | None = None
        self._running_seconds = 0.0
        self._share_seconds = 0.0
        self._since = clock()

    def make_model_breaker(self, model: str) -> CircuitBreaker:
        """Make what watches whether this server has one of its models."""
        return CircuitBreaker(f"{self.label} for {model}", self._ejection, self._clock)

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

    def change_access(self, api_key: str | None, tls: TlsFiles | None) -> None:
        """Go by another key or other certificates from the next request on."""
        self.headers = {"Authorization": build_bearer(api_key)} if api_key else {}
        if tls != self._tls:
            self._tls = tls
            self.urls.clear()

    def share(self, shared: SharedBackend | None) -> None:
        """Count with the other workers of this host from now on; None: by itself."""
        self._shared = shared
        if shared is None:
            return
        shared.inflight.set(self.inflight)
        shared.prompt_tokens.set(self._prompt_tokens)
        if self.drained:
            shared.drained = True
        self.adopt_state()

    def set_drained(self, *, drained: bool) -> None:
        """Send it nothing new from now on, or again, from any worker of this host."""
        if drained != self.drained:
            _log.info("backend %s %s by hand", self.label, "drained" if drained else "readmitted")
        self.drained = drained
        if self._shared is not None:
            self._shared.drained = drained

    def adopt_state(self) -> None:
        """Eject, readmit or drain where another worker has; to be called now and then."""
        self.adopt_ejection()
        if self._shared is not None:
            self.drained = self._shared.drained

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
        # As `sent_requests`, which each of a request's dozen looks would pay for.
        sent = self.inflight if self._shared is None else self._shared.inflight.total
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
        self._integrate()
        self._seen_at = self._clock()
        self.cache_usage = min(max(cache_usage or 0.0, 0.0), 1.0)
        runs, waits = (
            round(min(max(gauge or 0.0, 0.0), _MAX_GAUGE_REQUESTS)) for gauge in (running, waiting)
        )
        self._other_requests = max(0, runs + waits - own)
        self._seen_total = self._other_requests + own
        self._queue_reading = (waits, own) if waits else None

    def integrate_load(self) -> LoadIntegral:
        """Return the requests that it has run so far, and the part of one among them, over time.

        The difference of two calls over the time between them is the mean of either.
        """
        self._integrate()
        return self.last_integral

    @property
    def last_integral(self) -> LoadIntegral:
        """What `integrate_load` gave, or would have, when the load last changed or was read."""
        return LoadIntegral(self._running_seconds, self._share_seconds)

    def _integrate(self) -> None:
        now = self._clock()
        running, passed = self.running_and_queued[0], now - self._since
        self._running_seconds += running * passed
        self._share_seconds += passed / running if running > 1 else passed
        self._since = now

    @property
    def wait_seconds(self) -> float:
        """How much longer it asked not to be asked; 0 where it did not, or that is over."""
        return 0.0 if self._wait_until is None else max(0.0, self._wait_until - self._clock())

    @property
    def is_available(self) -> bool:
        """Whether a request may be sent there now."""
        if self.drained:
            return False
        if self._wait_until is not None and self._clock() < self._wait_until:
            return False
        return self.is_closed

    @property
    def is_last_resort(self) -> bool:
        """Whether it may be asked where no backend is available."""
        if self.drained:
            return False
        if self.is_ejected and not (self.ejected_for_answers or self.is_probed_half_open):
            return False
        return not (self._wait_trial_in_flight and self.wait_seconds > 0.0)

    @property
    def is_alone(self) -> bool:
        """Whether there is a model here that no other backend can serve now."""
        return any(
            all(other is self or other.is_ejected or other.drained for other in group)
            for group in self.groups
        )

    @property
    def is_in_use(self) -> bool:
        """Whether requests go there now, be it one at a time or for want of another."""
        if self.drained:
            return False
        if not self.is_ejected or self.is_probed_half_open:
            return True
        return self.ejected_for_answers and self.is_alone

    def begin_request(self) -> int:
        """Count a request in; return what `end_request` takes as its trial."""
        self._integrate()
        self._count_inflight(1)
        if self._wait_until is not None and self._clock() < self._wait_until:
            self._wait_trial_in_flight = True
            return WAIT_TRIAL
        return self.begin_trial()

    def end_request(self, *, trial: int = 0) -> None:
        """Count a request out, whatever its outcome; `trial` is what `begin_request` gave."""
        self._integrate()
        self._count_inflight(-1)
        if trial == WAIT_TRIAL:
            self._wait_trial_in_flight = False
        else:
            self.end_trial(trial)

    def _count_inflight(self, by: int) -> None:
        self.inflight += by
        if self._shared is not None:
            self._shared.inflight.set(self.inflight)

    def record_retry_after(self, seconds: float | None, status: int) -> None:
        """Note that it asked not to be asked for a while; its last word counts."""
        if seconds:
            self._wait_until = self._clock() + seconds
            self.wait_status = status

    def record_probe(self, *, well: bool, why: str = "", gone: bool = False) -> None:
        """Note the result of a health probe; `gone`: nobody listens there."""
        if gone:
            # Nor is there who asked not to be asked; what comes in its place has not.
            self._wait_until = None
        self.note_probe(well=well, why=why, alone=self.is_alone)
