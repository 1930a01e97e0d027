"""A circuit breaker: when to ask no more, and when again.

               `after_failures` failures in a row,
               or a failed probe before anything was ever well
    +---------+ -----------------------------------> +---------+
    | HEALTHY |                                      | EJECTED | <----------+
    +---------+                                      +---------+            |
      ^   ^                                            |    |               |
      |   |     a good probe, nobody else can serve    |    |               |
      |   +--------------------------------------------+    |               |
      |             its time is over, or a good probe       |               |
      |             after it could not be reached           v               |
      |  a response, or a stream's first content  +-----------+  a failure  |
      +------------------------------------------ | HALF-OPEN | ------------+
                                                  +-----------+
                                             one request at a time (the trial)

Rules: each ejection in a row lasts twice as long as the one before, up to a maximum; failures of
requests sent before an ejection do not prolong it; after a stream's first content one more failure
ejects again, until a whole response came. A good probe shortens no ejection for what was answered:
it says that the server is there, which nobody doubted. One that was ejected for its answers is a
last resort: it may be asked where nobody else can be. Workers of a host that share a table adopt
each other's ejections, and have one trial among them.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backends.worker_table import SharedBackend, SharedEjection

_log = logging.getLogger("joulegate.backends")


@dataclass(frozen=True, slots=True)
class EjectionPolicy:
    """How many failures eject a backend, and for how long (seconds)."""

    after_failures: int = 5
    first_seconds: float = 30.0
    max_seconds: float = 300.0


DEFAULT_EJECTION: Final = EjectionPolicy()


class CircuitBreaker:
    """The state of one thing that may fail; `label` names it. Times are monotonic-clock seconds."""

    __slots__ = (
        "_clock",
        "_ejection",
        "_ejection_serial",
        "_ejection_streak",
        "_failures",
        "_half_open_at",
        "_probed_well",
        "_shared",
        "_trial_in_flight",
        "ejected_for_answers",
        "ejections",
        "label",
        "proven_healthy",
    )

    def __init__(
        self,
        label: str,
        ejection: EjectionPolicy = DEFAULT_EJECTION,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label = label
        self.ejections = 0
        self.proven_healthy = False
        self.ejected_for_answers = False
        """Whether it is out for what it answered, rather than for not answering."""
        self._ejection = ejection
        self._clock = clock
        self._failures = 0
        self._ejection_streak = 0
        self._ejection_serial = 0
        self._shared: SharedBackend | None = None
        self._half_open_at: float | None = None
        self._trial_in_flight = False
        self._probed_well: bool | None = None

    @property
    def is_ejected(self) -> bool:
        """Whether it is ejected or half-open: not readmitted since its last ejection."""
        return self._half_open_at is not None

    @property
    def is_half_open(self) -> bool:
        """Whether it may be tried, one request at a time."""
        return self._half_open_at is not None and self._clock() >= self._half_open_at

    @property
    def is_probed_half_open(self) -> bool:
        """Whether it is half-open and no probe since its ejection has found it ill."""
        return self._probed_well is not False and self.is_half_open

    @property
    def is_closed(self) -> bool:
        """Whether a request may be let through now."""
        return self._half_open_at is None or (
            not self._trial_in_flight
            and self.is_half_open
            and (self._shared is None or not self._shared.trials.elsewhere)
        )

    def begin_trial(self) -> int:
        """Let a request through.

        Returns 0, or the number of the ejection whose trial this is: the one request that half-open
        lets through.
        """
        if not self.is_half_open:
            return 0
        self._mark_trial(in_flight=True)
        return self._ejection_serial

    def end_trial(self, trial: int) -> None:
        """Note that a request is over, whatever its outcome; `trial` is what `begin_trial` gave."""
        # A trial may outlast its ejection; it must not end the next one's.
        if trial and trial == self._ejection_serial:
            self._mark_trial(in_flight=False)

    def record_first_content(self) -> None:
        """Note a stream's first content: it readmits, though the stream has yet to end well."""
        self.proven_healthy = True
        if self._half_open_at is not None:
            self._readmit()
            self._failures = self._ejection.after_failures - 1

    def record_success(self) -> None:
        """Note a complete response, which readmits."""
        self.proven_healthy = True
        self._failures = 0
        if self._half_open_at is not None:
            self._readmit()
        self._ejection_streak = 0

    def record_failure(self, why: str = "", *, answered: bool = False) -> None:
        """Note a failure that is the server's own; `answered` where it did answer."""
        self._failures += 1
        if self._half_open_at is None:
            if self._failures >= self._ejection.after_failures:
                self._eject(why, answered=answered)
        elif self._clock() >= self._half_open_at:
            self._eject(why, answered=answered)
        elif not answered:
            self.ejected_for_answers = False

    def note_probe(self, *, well: bool, why: str, alone: bool) -> None:
        """Note the result of a health probe; `alone` says that nobody else can serve meanwhile."""
        self._probed_well = well
        if well:
            self.proven_healthy = True
            if self._half_open_at is None:
                return
            if alone:
                self._readmit()
            elif not self.ejected_for_answers:
                self._half_open_at = min(self._half_open_at, self._clock())
        elif self._half_open_at is not None:
            self.ejected_for_answers = False
        elif not self.proven_healthy:
            # Never seen well: waiting for five failures would only cost clients time.
            self._eject(why, answered=False)
        else:
            self.record_failure(why)

    def adopt_ejection(self) -> None:
        """Eject or readmit where another worker has; to be called now and then."""
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
        self._probed_well = None
        self.ejected_for_answers = news.for_answers
        self._mark_trial(in_flight=False)

    def _mark_trial(self, *, in_flight: bool) -> None:
        self._trial_in_flight = in_flight
        if self._shared is not None:
            self._shared.trials.set(int(in_flight))

    def _tell_workers(self) -> None:
        if self._shared is not None:
            told = SharedEjection(
                self._half_open_at, self._ejection_streak, for_answers=self.ejected_for_answers
            )
            self._shared.post_ejection(told)

    def _readmit(self) -> None:
        _log.info("backend %s readmitted", self.label)
        self._half_open_at = None
        self._mark_trial(in_flight=False)
        self.ejected_for_answers = False
        self._failures = 0
        self._tell_workers()

    def _eject(self, why: str, *, answered: bool) -> None:
        seconds = min(
            self._ejection.first_seconds * 2.0**self._ejection_streak, self._ejection.max_seconds
        )
        _log.warning("backend %s ejected for up to %g s: %s", self.label, seconds, why)
        self._half_open_at = self._clock() + seconds
        self._ejection_streak = min(self._ejection_streak + 1, 16)
        self._failures = 0
        self._mark_trial(in_flight=False)
        self._probed_well = None
        self.ejected_for_answers = answered
        self.ejections += 1
        self._ejection_serial += 1
        self._tell_workers()
