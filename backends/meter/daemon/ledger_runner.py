"""One ledger with what feeds it: the sampler of its counters and the backends that share them.

A backend goes by the name that a gateway has for it. Where the config lists it, all names it goes
by mean one backend, called by its root; so does any name on a ledger with one backend and no names.

A device at work draws power, so a counter that does not advance when it is due is not trusted:
requests in flight then, or when it moves again, are not measured. Idle energy is reported to
gateways from first contact on.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from backends.meter.daemon.counter import MICRO
from backends.meter.daemon.quotas import MAX_OPEN_REQUESTS
from backends.meter.daemon.sampler import CounterSampler
from backends.meter.ledger.ledger import EnergyLedger
from backends.meter.ledger.settled import SettledRequest
from backends.meter.sources.source import EnergySource

_MAX_BACKENDS = 1000
_IDLE_STEPS = 60
_IDLE_STEP_US = 5_000_000
_COARSE_US = 900_000
"""A counter that means to move once a second is coarse, though it may be found a little faster."""


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A vLLM server: its root URL and what gateways call it (default: its host and port)."""

    root: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerSpec:
    """A set of counters and the backends that spend what they count."""

    name: str
    source: EnergySource
    backends: tuple[BackendSpec, ...] = ()


class LedgerRunner:
    """A ledger at work. Times are clock.clock_us(), energies microjoules."""

    def __init__(self, spec: LedgerSpec, *, hz: float) -> None:
        self.name = spec.name
        self.source = spec.source
        self.ledger = EnergyLedger(
            spec.name, coarse=spec.source.coarse, max_requests=MAX_OPEN_REQUESTS
        )
        self.sampler = CounterSampler(spec.name, spec.source, hz=hz)
        self.roots = tuple(backend.root for backend in spec.backends)
        self.microjoules_by_device: dict[str, int] = {}
        """What each device's counter has advanced by, in intervals that have ended."""
        self._root_by_name = {name: b.root for b in spec.backends for name in _list_names(b)}
        only = len(spec.backends) == 1 and not spec.backends[0].names
        self._only_root = spec.backends[0].root if only else None
        self._known_backends: set[str] = set()
        self._unreported_energy: dict[str, tuple[int, int]] = {}
        self._stood_still = False
        self._idle_reported: int | None = None
        self._other_reported: dict[str, int] = {}
        self._idle_steps: deque[tuple[int, int]] = deque(maxlen=_IDLE_STEPS)
        for root in self.roots:
            self.ledger.enable_token_polling(root)

    @property
    def runs_faster_than_life(self) -> bool:
        """Whether its devices are simulated: their tokens may come at any rate."""
        return self.source.kind == "simulator"

    def lists_backend(self, place: str) -> bool:
        """Whether the config says that this backend is one of this ledger's."""
        return place in self._root_by_name

    def register_backend(self, place: str) -> str | None:
        """Return what the ledger calls a gateway's backend; None where it knows too many."""
        backend = self._root_by_name.get(place) or self._only_root or place
        if backend not in self._known_backends and len(self._known_backends) >= _MAX_BACKENDS:
            return None
        self._known_backends.add(backend)
        if self._idle_reported is None:
            self._idle_reported = self.ledger.idle_microjoules
        return backend

    def forget_backends(self, backends: Iterable[str]) -> None:
        """Forget backends that no gateway names any more."""
        self._known_backends.difference_update(backends)

    def apply_counter_events(self) -> None:
        """Apply the sampler's events to the ledger."""
        for news in self.sampler.take_events():
            if news.kind == "advance":
                for device, microjoules in news.microjoules.items():
                    self.microjoules_by_device[device] = (
                        self.microjoules_by_device.get(device, 0) + microjoules
                    )
                moved = news.microjoules.values()
                self.ledger.advance_counter(
                    news.at_us, sum(moved), hole=self._check_standstill(moved)
                )
            elif news.kind == "start":
                self.ledger.start_counter(news.at_us)
            else:
                self.ledger.lose_counter(news.at_us)
        slow = (self.sampler.period_us or 0) >= _COARSE_US
        self.ledger.coarse = self.source.coarse or slow

    def _check_standstill(self, moved: Iterable[int]) -> bool:
        """Whether a counter stood still in this interval, or in the last one with work there."""
        stood, stood_before = not all(moved), self._stood_still
        self._stood_still = stood and self.ledger.open_requests > 0
        return stood or stood_before

    def collect_settled(self, now_us: int) -> list[SettledRequest]:
        """Settle what can be settled by now."""
        ledger = self.ledger
        before_us, idle, used = (
            ledger.settled_us,
            ledger.idle_microjoules,
            ledger.attributed_microjoules + ledger.other_microjoules,
        )
        settled = ledger.settle_requests(now_us)
        step_us = ledger.settled_us - before_us
        # A step over a hole, or the first one, has time in it that no counter has measured.
        measured = step_us <= _IDLE_STEP_US
        if (
            measured
            and ledger.idle_microjoules > idle
            and ledger.attributed_microjoules + ledger.other_microjoules == used
        ):
            self._idle_steps.append((ledger.idle_microjoules - idle, step_us))
        return settled

    @property
    def idle_watts(self) -> float | None:
        """The mean power of recent idle steps: no tokens were processed in them."""
        microseconds = sum(step_us for _, step_us in self._idle_steps)
        return sum(step for step, _ in self._idle_steps) / microseconds if microseconds else None

    def take_unattributed(self, backends: Iterable[str]) -> list[tuple[str, int, int]]:
        """Return idle and other energy of these backends that was not reported yet."""
        self._split_unattributed()
        found = []
        for backend in backends:
            idle, other = self._unreported_energy.pop(backend, (0, 0))
            if idle or other:
                found.append((backend, idle, other))
        return found

    def _split_unattributed(self) -> None:
        """Split new idle energy evenly over the known backends; `other` is kept per backend."""
        heard = sorted(self._known_backends)
        if heard and self._idle_reported is not None:
            each, left = divmod(self.ledger.idle_microjoules - self._idle_reported, len(heard))
            self._idle_reported = self.ledger.idle_microjoules
            for index, backend in enumerate(heard):
                self._add_unreported(backend, each + (index < left), 0)
        for backend, total in self.ledger.other_by_backend.items():
            self._add_unreported(backend, 0, total - self._other_reported.get(backend, 0))
            self._other_reported[backend] = total

    def _add_unreported(self, backend: str, idle: int, other: int) -> None:
        if idle or other:
            was_idle, was_other = self._unreported_energy.get(backend, (0, 0))
            self._unreported_energy[backend] = (was_idle + idle, was_other + other)

    @property
    def has_counters(self) -> bool:
        """Whether its counters can be read."""
        return bool(self.sampler.counters)

    @property
    def troubles(self) -> list[str]:
        """Why energy is not measured, in sentences; none where it is."""
        sampler = self.sampler
        if not sampler.counters:
            return [f"ledger {self.name}: {sampler.last_error or 'no counter has been read yet'}"]
        still = [one.device.id for one in sampler.counters if sampler.is_standing_still(one)]
        return [f"ledger {self.name}: the counter of {device} stands still" for device in still]

    def describe_health(self) -> dict[str, Any]:
        """Return what /health says of it."""
        sampler = self.sampler
        return {
            "source": self.source.kind,
            "coarse": self.source.coarse,
            "counting": self.has_counters,
            "devices": [
                {
                    "id": counter.device.id,
                    "name": counter.device.name,
                    "period_seconds": counter.period_us and counter.period_us / MICRO,
                    "still": sampler.is_standing_still(counter),
                }
                for counter in sampler.counters
            ],
            "counter_to_power_ratios": getattr(self.source, "checks", {}),
            "warnings": getattr(self.source, "warnings", ()),
            "last_error": sampler.last_error,
            "open_requests": self.ledger.open_requests,
            "unsettled_joules": self.ledger.unsettled_microjoules / MICRO,
        }


def _list_names(backend: BackendSpec) -> tuple[str, ...]:
    parts = urlsplit(backend.root)
    return backend.names or (parts.netloc + parts.path, backend.root)
