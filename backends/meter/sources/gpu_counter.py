"""One GPU's microjoules from what its driver says: a counter, or power summed up. PURE.

The counter is trusted while it agrees with power: every few minutes, for a few seconds, its
advance is compared with the integral of instantaneous power. If it stands still or is off by more
than half, twice running, the integral takes over from there and stays. What this yields only falls
if the counter itself was reset: a driver's wrap at 32 or 64 bits of millijoules is undone.
"""

from typing import Final

CHECK_US: Final = 5_000_000
CHECK_EVERY_US: Final = 300_000_000
_WIDEST_GAP_US: Final = 1_500_000
"""A check with a wider gap between two readings shows nothing and is begun anew."""
_LEAST_MICROJOULES: Final = 25_000_000
"""A check over less energy than that (5 W for its whole length) shows nothing."""
_AGREE: Final = (0.5, 1.5)
_MOST_MILLIJOULES_PER_US: Final = 5
"""5 kW: no GPU draws more; what would take more is no wrap."""
_SLACK_US: Final = 1_000_000
_LONGEST_WRAP_US: Final = 60_000_000
"""After a longer silence a counter that has fallen may have done anything: it was reset."""
_WRAP_BITS: Final = (32, 64)


class PowerIntegral:
    """Power summed up by trapezoids; exact in integers."""

    def __init__(self) -> None:
        self._twice_nanojoules = 0
        self._last: tuple[int, int] | None = None

    @property
    def microjoules(self) -> int:
        """The sum so far."""
        return self._twice_nanojoules // 2000

    def add_power(self, at_us: int, milliwatts: int) -> None:
        """Note the power at a time."""
        if self._last is not None:
            last_us, last_milliwatts = self._last
            self._twice_nanojoules += (last_milliwatts + milliwatts) * (at_us - last_us)
        self._last = (at_us, milliwatts)

    def pause_until_next(self) -> None:
        """What is drawn until the next `add_power` is not known and does not count."""
        self._last = None


class _CounterCheck:
    """One comparison under way; `began_us` with the counter at `began_microjoules`."""

    def __init__(self, at_us: int, microjoules: int) -> None:
        self.began_us = self.last_us = at_us
        self.began_microjoules = self.last_microjoules = microjoules
        self.integral = PowerIntegral()


class GpuCounter:
    """Takes readings, oldest first; see the top of the file."""

    def __init__(self) -> None:
        self.ratio: float | None = None
        """The counter's advance over that of integrated power, by the last check that could be."""
        self.integrates = False
        """Whether power is summed up because there is no counter, or no good one."""
        self._base_microjoules = 0
        self._integral = PowerIntegral()
        self._raw: tuple[int, int] | None = None
        self._wrapped_millijoules = 0
        self._check: _CounterCheck | None = None
        self._next_check_us: int | None = None
        self._doubted = False
        self._microjoules = 0

    @property
    def microjoules(self) -> int:
        """The sum after the last reading."""
        return self._microjoules

    def wants_power(self, at_us: int) -> bool:
        """Whether the reading to be taken now must, or should, come with power."""
        due = self._next_check_us is None or at_us >= self._next_check_us
        return self.integrates or self._check is not None or due

    def resume_after_hole(self) -> None:
        """Readings begin again after a hole."""
        self._integral.pause_until_next()
        self._check = self._next_check_us = None
        self._doubted = False

    def integrate_power(self) -> None:
        """Sum up power from here on: there is no counter."""
        if not self.integrates:
            self._switch_to_integral()
            self.ratio = None

    def _switch_to_integral(self) -> None:
        self.integrates = True
        self._base_microjoules = self._microjoules
        self._check = None

    def record_reading(self, at_us: int, millijoules: int | None, milliwatts: int | None) -> int:
        """Return the microjoules after one reading; without power while `integrates`: the last."""
        if not self.integrates and millijoules is not None:
            self._microjoules = 1000 * self._unwrap_counter(at_us, millijoules)
            self._check_counter(at_us, milliwatts)
        if self.integrates and milliwatts is not None:
            self._integral.add_power(at_us, milliwatts)
            self._microjoules = self._base_microjoules + self._integral.microjoules
        return self._microjoules

    def _unwrap_counter(self, at_us: int, raw: int) -> int:
        if self._raw is not None and raw < self._raw[1]:
            then_us, then = self._raw
            elapsed_us = at_us - then_us
            most = _MOST_MILLIJOULES_PER_US * (elapsed_us + _SLACK_US)
            for size in (1 << bits for bits in _WRAP_BITS):
                if elapsed_us <= _LONGEST_WRAP_US and then < size and raw + size - then <= most:
                    self._wrapped_millijoules += size
                    break
        self._raw = (at_us, raw)
        return self._wrapped_millijoules + raw

    def _check_counter(self, at_us: int, milliwatts: int | None) -> None:
        """Feed the check under way, begin one if it is time, judge by one that is complete."""
        if not self.wants_power(at_us):
            return
        check = self._check
        if milliwatts is None:  # not to be had now; later perhaps
            self._check, self._next_check_us = None, at_us + CHECK_EVERY_US
            return
        if (
            check is None
            or at_us - check.last_us > _WIDEST_GAP_US
            or self._microjoules < check.last_microjoules
        ):
            check = self._check = _CounterCheck(at_us, self._microjoules)
        check.integral.add_power(at_us, milliwatts)
        check.last_us, check.last_microjoules = at_us, self._microjoules
        if at_us - check.began_us < CHECK_US:
            return
        self._check, self._next_check_us = None, at_us + CHECK_EVERY_US
        if check.integral.microjoules < _LEAST_MICROJOULES:
            return
        advance = self._microjoules - check.began_microjoules
        self.ratio = advance / check.integral.microjoules
        agree = _AGREE[0] <= self.ratio <= _AGREE[1]
        if self._doubted and not agree:
            self._switch_to_integral()
        # Power that jumps just before a check's end, unseen by a counter that lags, is no proof.
        self._doubted = not agree
        if self._doubted:
            self._next_check_us = at_us
