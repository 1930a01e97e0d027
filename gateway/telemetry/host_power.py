"""How much power a server draws without its accelerators, by a counter or by configuration. Pure.

Rules of this file:

- Where a meter reads the server's own counter (RAPL), its power is that of the last reading, which
  is about a second old; else, or once readings have stopped for 15 s, the configured watts.
- What was charged since the first reading is held against what the counter says: the difference
  is made good over the next ten seconds, so that the sums agree while single moments may not.
- A gateway's readings are its share already; configured watts are divided by its processes.
"""

from typing import Final, NamedTuple

CONFIGURED: Final = "configured"
_STALE_SECONDS: Final = 15.0
_MAKE_GOOD_SECONDS: Final = 10.0


class HostReading(NamedTuple):
    """A counter's joules and the seconds that they were counted over, both since its beginning."""

    source: str
    counter: int
    """Which of several counters it is."""
    joules: float
    seconds: float


class HostPower:
    """One server's power. Times are monotonic seconds."""

    __slots__ = (
        "_ahead_joules",
        "_configured_watts",
        "_counted_joules",
        "_counted_seconds",
        "_counter",
        "_read_at",
        "source",
        "watts",
    )

    def __init__(self, configured_watts: float) -> None:
        self.source = CONFIGURED
        """What says so: `configured`, or the source of the meter's counter."""
        self.watts = configured_watts
        self._configured_watts = configured_watts
        self._read_at: float | None = None
        self._counter = 0
        self._counted_joules = self._counted_seconds = self._ahead_joules = 0.0

    def record_energy(self, reading: HostReading, charged_joules: float, now: float) -> None:
        """Take a reading, and what has been charged so far.

        A counter that falls has been restarted, and is held against nothing before.
        """
        joules, seconds = reading.joules, reading.seconds
        if (
            reading.counter != self._counter
            or joules < self._counted_joules
            or seconds < self._counted_seconds
        ):
            self._read_at = None
        if self._read_at is None:
            self._read_at, self._counter = now, reading.counter
            self._ahead_joules = charged_joules - joules
        elif seconds > self._counted_seconds:
            power = (joules - self._counted_joules) / (seconds - self._counted_seconds)
            short = joules + self._ahead_joules - charged_joules
            self.watts = max(0.0, power + short / _MAKE_GOOD_SECONDS)
            self.source = reading.source
            self._read_at = now
        else:
            return
        self._counted_joules, self._counted_seconds = joules, seconds

    def expire_reading(self, now: float) -> None:
        """Go back to the configured watts where the last reading is too old."""
        if self._read_at is not None and now - self._read_at > _STALE_SECONDS:
            self.source, self.watts = CONFIGURED, self._configured_watts
            self._read_at = None
