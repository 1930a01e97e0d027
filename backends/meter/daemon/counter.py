"""One device's counter: how far it moved, how often it is updated, when to look at it next.

PURE: no clock. Times are microseconds of one monotonic clock, energies microjoules.

Rules:
- A counter that falls has wrapped where the device says it may and the step is one that a device
  can make; else it has been reset, and what it counted meanwhile is unknown.
- Its update period is the median gap between two changes. From then on each update that was seen
  to come, within a look, corrects the period and so the time of the next.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from backends.meter.sources.source import EnergyDevice

MICRO = 1_000_000
_MIN_GAPS = 3
_MAX_GAPS = 400
_LOOK_EVERY_US = 2_000
_MAX_WATTS = 20_000


def find_slowest_period(periods_us: Iterable[int | None]) -> int | None:
    """Return the longest of some periods, once all are known and there are any."""
    longest = 0
    for period_us in periods_us:
        if period_us is None:
            return None
        longest = max(longest, period_us)
    return longest or None


@dataclass(slots=True)
class DeviceCounter:
    """What one device's counter has shown. Times are clock_us()."""

    device: EnergyDevice
    value: int
    moved_us: int
    unclosed_microjoules: int = 0
    """Microjoules since the last interval closed."""
    moved: bool = False
    period_us: int | None = None
    gaps_us: list[int] = field(default_factory=list)
    lead_us: int = _LOOK_EVERY_US
    """How long before its next update is due it is looked at."""
    _changed: bool = False
    _looked_us: int = 0
    _sharp_us: int | None = None
    """When it moved last, if that is known to a look."""

    def record_reading(self, value: int, at_us: int) -> bool:
        """Take a reading; False where the counter has been reset."""
        before_us, self._looked_us = self._looked_us, at_us
        if value == self.value:
            return True
        step = value - self.value
        if step < 0:
            step = self._unwrap_step(step, at_us)
        if step < 0:
            return False
        if self._changed and self.period_us is None and len(self.gaps_us) < _MAX_GAPS:
            self.gaps_us.append(at_us - self.moved_us)
        if self.period_us is not None:
            self._track_period(self.period_us, at_us, sharp=at_us - before_us <= 2 * _LOOK_EVERY_US)
        self.value, self.moved_us = value, at_us
        self.unclosed_microjoules += step
        self.moved = self._changed = True
        return True

    def _unwrap_step(self, step: int, at_us: int) -> int:
        """Return the step across a wrap, or a negative number where that cannot be."""
        wraps_at = self.device.wraps_at_microjoules
        possible = _MAX_WATTS * max(at_us - self.moved_us, MICRO)
        if wraps_at is None or step + wraps_at > possible:
            return -1
        return step + wraps_at

    def _track_period(self, period_us: int, at_us: int, *, sharp: bool) -> None:
        """Keep up with when updates come; one that was there at the first look came too soon."""
        if not sharp:
            self.lead_us = min(2 * self.lead_us, period_us // 4)
            self._sharp_us = None
            return
        if self._sharp_us is not None:
            error_us = at_us - self._sharp_us - period_us
            if abs(error_us) < period_us // 4:
                self.period_us = period_us + error_us // 4
        self.lead_us = max(3 * self.lead_us // 4, _LOOK_EVERY_US)
        self._sharp_us = at_us

    def next_read_in_us(self, now_us: int, every_us: int) -> int:
        """Return when to look at it next: as its next update is due, else every so often."""
        if self.period_us is None or self.period_us < every_us:
            return every_us
        due_us = self.moved_us + self.period_us - now_us
        if due_us < -self.period_us // 4:
            return every_us
        return max(due_us - self.lead_us, _LOOK_EVERY_US)

    def fix_period(self) -> None:
        """Fix the period if it has been seen often enough."""
        if self.period_us is None and len(self.gaps_us) >= _MIN_GAPS:
            self.period_us = round(median(self.gaps_us))
            self.gaps_us.clear()
