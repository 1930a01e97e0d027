"""Backends and deployments: who is there, how busy, and who is left alone for now.

Rules of a backend's state: usable until `eject_after_failures` failures in a row; then ejected,
each time twice as long up to a maximum; then half-open, one request at a time, until one succeeds
(usable again) or fails (ejected again). A probe that succeeds opens it half before its time.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from yarl import URL

from backends.meter.client.request_handle import BackendMeter

_log = logging.getLogger("joulegate.backends")

_MOST_REQUESTS = 1e6  # a gauge above it is broken


@dataclass(frozen=True, slots=True)
class Ejection:
    """How many failures eject a backend, and for how long (seconds)."""

    after_failures: int = 5
    first_seconds: float = 30.0
    max_seconds: float = 300.0


class Backend:
    """One vLLM server and what this process knows of it. Times are monotonic-clock seconds."""

    __slots__ = (
        "_clock", "_ejection", "_failures", "_foreign", "_opens_at", "_seen_at", "_seen_total",
        "_streak", "_trial", "_waited", "cache_usage",
        "ejections", "headers", "inflight", "label", "meter", "prompt_tokens", "proven", "root",
        "urls",
    )  # fmt: skip

    def __init__(
        self,
        root: str,
        *,
        api_key: str | None = None,
        ejection: Ejection = Ejection(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        parts = urlsplit(root)
        self.label = parts.netloc + parts.path
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.urls: dict[str, URL] = {}
        self.meter: BackendMeter | None = None
        self.inflight = 0
        self.ejections = 0
        self.proven = False
        self.prompt_tokens = 0
        """Sent there and not yet answered by a first token."""
        self.cache_usage = 0.0
        """Share of the KV cache that was in use when last looked at."""
        self._foreign = 0
        self._seen_at: float | None = None
        self._seen_total = 0
        self._waited: tuple[int, int] | None = None
        self._ejection = ejection
        self._clock = clock
        self._failures = 0
        self._streak = 0
        self._opens_at: float | None = None
        self._trial = False

    def url(self, path: str) -> URL:
        """Return the address of `path` on this server; parsed once."""
        try:
            return self.urls[path]
        except KeyError:
            self.urls[path] = URL(self.root + path)
            return self.urls[path]

    @property
    def load(self) -> tuple[int, int]:
        """How many it runs now and how many wait there: this process's, and others' it has shown.

        A queue that was seen grows by what has been sent since.
        """
        total = self.inflight + self._foreign
        if self._waited is None:
            return total, 0
        waiting, own = self._waited
        queued = min(total, max(0, waiting + self.inflight - own))
        return total - queued, queued

    @property
    def last_seen(self) -> tuple[int, int, float]:
        """What the gauges showed: others' requests, all requests, and how many seconds ago."""
        if self._seen_at is None:
            return 0, 0, 0.0
        return self._foreign, self._seen_total, max(0.0, self._clock() - self._seen_at)

    def seen(
        self,
        running: float | None,
        waiting: float | None,
        *,
        own: int,
        cache_usage: float | None = None,
    ) -> None:
        """Note what vLLM's gauges show, and how many of those were `own`; None: nothing."""
        self._seen_at = self._clock()
        self.cache_usage = min(max(cache_usage or 0.0, 0.0), 1.0)
        runs, waits = (
            round(min(max(gauge or 0.0, 0.0), _MOST_REQUESTS)) for gauge in (running, waiting)
        )
        self._foreign = max(0, runs + waits - own)
        self._seen_total = self._foreign + own
        self._waited = (waits, own) if waits else None

    @property
    def ejected(self) -> bool:
        """Whether it has failed its way out and not yet proven itself again."""
        return self._opens_at is not None

    @property
    def usable(self) -> bool:
        """Whether a request may be sent there now."""
        return self._opens_at is None or (not self._trial and self._clock() >= self._opens_at)

    def begin(self) -> int:
        """Count a request in.

        Returns 0, or the number of the ejection whose trial this is: the one request that a
        half-open backend lets through.
        """
        self.inflight += 1
        if self._opens_at is None:
            return 0
        self._trial = True
        return self.ejections

    def end(self, *, trial: int = 0) -> None:
        """Count a request out, whatever became of it; `trial` is what `begin` returned."""
        self.inflight -= 1
        # A trial may outlast its ejection; it must not end the next one's.
        if trial and trial == self.ejections:
            self._trial = False

    def answering(self) -> None:
        """Note the first content of a stream: the server is back, but has yet to finish one."""
        self.proven = True
        if self._opens_at is not None:
            self._open()
            self._failures = self._ejection.after_failures - 1

    def succeeded(self) -> None:
        """Note a whole answer, which shows the server to be well."""
        self.proven = True
        self._failures = 0
        if self._opens_at is not None:
            self._open()
        elif self._streak:
            self._streak = 0

    def failed(self, why: str = "") -> None:
        """Note a failure that is the server's own."""
        self._failures += 1
        if self._opens_at is None:
            if self._failures >= self._ejection.after_failures:
                self._eject(why)
        elif self._clock() >= self._opens_at:
            self._eject(why)

    def probed(self, *, well: bool, why: str = "") -> None:
        """Note the result of a health probe."""
        if well:
            self.proven = True
            if self._opens_at is not None:
                self._opens_at = min(self._opens_at, self._clock())
        elif self._opens_at is None and not self.proven:
            # Never seen well: waiting for five failures would only cost clients time.
            self._eject(why)
        elif self._opens_at is None:
            self.failed(why)

    def _open(self) -> None:
        _log.info("backend %s is back", self.label)
        self._opens_at = None
        self._trial = False

    def _eject(self, why: str) -> None:
        seconds = min(self._ejection.first_seconds * 2.0**self._streak, self._ejection.max_seconds)
        _log.warning("backend %s is left alone for up to %g s: %s", self.label, seconds, why)
        self._opens_at = self._clock() + seconds
        self._streak = min(self._streak + 1, 16)
        self._failures = 0
        self._trial = False
        self.ejections += 1


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

    def pick(self, tried: Iterable[Backend] = ()) -> Backend | None:
        """Choose the less busy of two usable backends drawn at random; None where none is left."""
        if len(self.backends) == 1:
            only = self.backends[0]
            return only if only.usable and only not in tried else None
        usable = [b for b in self.backends if b not in tried and b.usable]
        if len(usable) > 2:  # noqa: PLR2004 - the power of two choices
            usable = self._random.sample(usable, 2)
        elif not usable:
            return None
        if len(usable) == 1:
            return usable[0]
        first, second = usable
        busy, busier = sum(first.load), sum(second.load)
        if busy == busier:
            return usable[self._random.getrandbits(1)]
        return first if busy < busier else second
