"""One ledger with what feeds it: the sampler of its counters and the backends that share them.

A backend goes by the name that a gateway has for it. Where the config lists it, all names it goes
by mean one backend, called by its root; so does any name on a ledger with one backend and no names.

A device at work draws power, so a counter that stands still beyond its time is not to be believed:
who is in flight then, or when it moves again, has not been measured. Idle energy is told to
gateways from the first on that any was heard.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from backends.meter.daemon.counter import MICRO
from backends.meter.daemon.sampler import Sampler
from backends.meter.ledger.ledger import Ledger
from backends.meter.ledger.settled import Settled
from backends.meter.sources.source import Source

_MOST_NAMES = 1000
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
    source: Source
    backends: tuple[BackendSpec, ...] = ()


class Station:
    """A ledger at work. Times are sampler.clock_us(), energies microjoules."""

    def __init__(self, spec: LedgerSpec, *, hz: float) -> None:
        self.name = spec.name
        self.source = spec.source
        self.ledger = Ledger(spec.name, coarse=spec.source.coarse)
        self.sampler = Sampler(spec.name, spec.source, hz=hz)
        self.roots = tuple(backend.root for backend in spec.backends)
        self.energy: dict[str, int] = {}
        """What each device's counter has advanced by, in intervals that have ended."""
        self._named = {name: b.root for b in spec.backends for name in _names(b)}
        only = len(spec.backends) == 1 and not spec.backends[0].names
        self._only_root = spec.backends[0].root if only else None
        self._heard: set[str] = set()
        self._untold: dict[str, tuple[int, int]] = {}
        self._stood = False
        self._idle_told: int | None = None
        self._other_told: dict[str, int] = {}
        self._idle_steps: deque[tuple[int, int]] = deque(maxlen=_IDLE_STEPS)
        for root in self.roots:
            self.ledger.counts_expected(root)

    def names(self, place: str) -> bool:
        """Whether the config says that this backend is one of this ledger's."""
        return place in self._named

    def hear(self, place: str) -> str | None:
        """Return what the ledger calls a gateway's backend; None where it knows too many."""
        backend = self._named.get(place) or self._only_root or place
        if backend not in self._heard and len(self._heard) >= _MOST_NAMES:
            return None
        self._heard.add(backend)
        if self._idle_told is None:
            self._idle_told = self.ledger.idle
        return backend

    def forget(self, backends: Iterable[str]) -> None:
        """Forget backends of which no gateway speaks any more."""
        self._heard.difference_update(backends)

    def drain(self) -> None:
        """Take in what the sampler has seen."""
        for news in self.sampler.take():
            if news.kind == "advance":
                for device, microjoules in news.microjoules.items():
                    self.energy[device] = self.energy.get(device, 0) + microjoules
                moved = news.microjoules.values()
                self.ledger.advance(news.at_us, sum(moved), hole=self._doubtful(moved))
            elif news.kind == "start":
                self.ledger.start(news.at_us)
            else:
                self.ledger.lost(news.at_us)
        slow = (self.sampler.period_us or 0) >= _COARSE_US
        self.ledger.coarse = self.source.coarse or slow

    def _doubtful(self, moved: Iterable[int]) -> bool:
        """Whether a counter stood still in this interval, or in the last one with work there."""
        stood, stood_before = not all(moved), self._stood
        self._stood = stood and self.ledger.open_requests > 0
        return stood or stood_before

    def settle(self, now_us: int) -> list[Settled]:
        """Settle what can be settled by now."""
        ledger = self.ledger
        before_us, idle, used = ledger.settled_us, ledger.idle, ledger.attributed + ledger.other
        settled = ledger.settle(now_us)
        step_us = ledger.settled_us - before_us
        # A step over a hole, or the first one, has time in it that no counter has measured.
        measured = step_us <= _IDLE_STEP_US
        if measured and ledger.idle > idle and ledger.attributed + ledger.other == used:
            self._idle_steps.append((ledger.idle - idle, step_us))
        return settled

    @property
    def idle_watts(self) -> float | None:
        """The mean power of recent steps in which nobody had any tokens."""
        microseconds = sum(step_us for _, step_us in self._idle_steps)
        return sum(step for step, _ in self._idle_steps) / microseconds if microseconds else None

    def take(self, backends: Iterable[str]) -> list[tuple[str, int, int]]:
        """Return idle and other energy of these backends that nobody has been told of."""
        self._share_out()
        found = []
        for backend in backends:
            idle, other = self._untold.pop(backend, (0, 0))
            if idle or other:
                found.append((backend, idle, other))
        return found

    def _share_out(self) -> None:
        """Split new idle energy evenly over the backends heard of; `other` has its own."""
        heard = sorted(self._heard)
        if heard and self._idle_told is not None:
            each, left = divmod(self.ledger.idle - self._idle_told, len(heard))
            self._idle_told = self.ledger.idle
            for index, backend in enumerate(heard):
                self._owe(backend, each + (index < left), 0)
        for backend, total in self.ledger.other_by_backend.items():
            self._owe(backend, 0, total - self._other_told.get(backend, 0))
            self._other_told[backend] = total

    def _owe(self, backend: str, idle: int, other: int) -> None:
        if idle or other:
            was_idle, was_other = self._untold.get(backend, (0, 0))
            self._untold[backend] = (was_idle + idle, was_other + other)

    @property
    def counting(self) -> bool:
        """Whether its counters can be read."""
        return bool(self.sampler.counters)

    def health(self) -> dict[str, Any]:
        """Return what /health says of it."""
        sampler = self.sampler
        return {
            "source": self.source.kind,
            "coarse": self.source.coarse,
            "counting": self.counting,
            "devices": [
                {
                    "id": counter.device.id,
                    "name": counter.device.name,
                    "period_seconds": counter.period_us and counter.period_us / MICRO,
                    "still": sampler.still(counter),
                }
                for counter in sampler.counters
            ],
            "counter_to_power_ratios": getattr(self.source, "checks", {}),
            "warnings": getattr(self.source, "warnings", ()),
            "last_error": sampler.last_error,
            "open_requests": self.ledger.open_requests,
            "unsettled_joules": self.ledger.unsettled / MICRO,
        }


def _names(backend: BackendSpec) -> tuple[str, ...]:
    parts = urlsplit(backend.root)
    return backend.names or (parts.netloc + parts.path, backend.root)
