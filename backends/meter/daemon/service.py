"""The meter itself, without its sockets: batches in, answers out.

Rules:
- A batch is taken whole or not at all; its begins first, because it is in no order.
- A backend belongs to the ledger the gateway names, else to the one whose config names it, else
  to the only one there is; else it is unknown and its events are dropped.
- Idle and other energy is told to the first gateway that posts and knows the backend, at most
  once a second.
- A gateway silent for 10 s has vanished: its requests end with its last batch. After 300 s it is
  forgotten.
"""

import itertools
import secrets
from collections.abc import Sequence

from backends.meter.daemon.counter import MICRO, slowest
from backends.meter.daemon.ledger_runner import LedgerSpec, Station
from backends.meter.daemon.outbox import Outbox
from backends.meter.daemon.token_poller import TokenTotals
from backends.meter.ledger.decode_weights import DecodeCost
from backends.meter.protocol import VANISHED_SECONDS, Answer, Batch, Begin, End, Place, Progress

_FORGET_US = 300 * MICRO
_TELL_SPENT_EVERY_US = MICRO
_SETTLE_EVERY_US = MICRO // 2
"""However many gateways post: going through all requests costs more than taking a batch."""
_MOST_GATEWAYS = 256
_MOST_PLACES = 1000
_MOST_NAME_CHARACTERS = 200
_MOST_OPEN = 50_000
_LIMIT = 1 << 53
_KINDS = {Begin: "begin", Progress: "progress", End: "end"}


class BadBatchError(ValueError):
    """A batch that makes no sense; nothing of it was taken."""


class CrowdedError(Exception):
    """More gateways than a meter serves."""


class _Gateway:
    """What the meter knows of one gateway process."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.seen_us = 0
        self.vanished = False
        self.told_spent_us = 0
        self.listed: list[Place] = []
        self.places: list[tuple[Station, str] | None] = []
        self.called: dict[Station, dict[str, str]] = {}
        """By ledger: its name of each backend, and the gateway's."""
        self.unknown: list[str] = []
        self.open: dict[int, Station] = {}


class Meter:
    """All ledgers of one process. Times are sampler.clock_us()."""

    def __init__(self, ledgers: Sequence[LedgerSpec], *, hz: float = 20.0) -> None:
        self.id = secrets.token_hex(8)
        self.stations = {spec.name: Station(spec, hz=hz) for spec in ledgers}
        self.events = dict.fromkeys(_KINDS.values(), 0)
        self._numbers = itertools.count(1)
        self._gateways: dict[str, _Gateway] = {}
        self._dropped = 0
        self._settled_us = 0

    def receive(self, batch: Batch, now_us: int) -> Answer:
        """Take a batch. Raises BadBatchError, CrowdedError."""
        _check(batch)
        gateway = self._gateway(batch.gateway)
        gateway.seen_us = now_us
        gateway.vanished = False
        if batch.backends != gateway.listed:
            self._place(gateway, batch.backends)
        gateway.outbox.received(batch.received)
        self.drain()
        self._note(gateway, batch, now_us)
        if now_us - self._settled_us >= _SETTLE_EVERY_US:
            self.settle(now_us)
        if now_us - gateway.told_spent_us >= _TELL_SPENT_EVERY_US:
            for station, called in gateway.called.items():
                for backend, idle, other in station.take(called):
                    gateway.told_spent_us = now_us
                    gateway.outbox.spend(called[backend], idle=idle, other=other)
        observations, spendings = gateway.outbox.tell()
        period_us = slowest(station.sampler.period_us for station in gateway.called)
        seconds = period_us and period_us / MICRO
        return Answer(self.id, observations, spendings, seconds, gateway.unknown)

    def counted(self, root: str, now_us: int, totals: TokenTotals) -> None:
        """Take a backend's own token counters."""
        for station in self.stations.values():
            if root in station.roots:
                station.ledger.counted(root, now_us, *totals)

    def drain(self) -> None:
        """Take in what the counters did."""
        for station in self.stations.values():
            station.drain()

    def settle(self, now_us: int) -> None:
        """Give what is settled by now to whom it belongs."""
        self._settled_us = now_us
        for station in self.stations.values():
            for settled in station.settle(now_us):
                name, request = settled.key
                gateway = self._gateways.get(name)
                if gateway is None:
                    self._dropped += 1
                else:
                    gateway.open.pop(request, None)
                    gateway.outbox.observe(request, settled.microjoules, settled.method)

    def tidy(self, now_us: int) -> None:
        """Look for gateways that are gone; to be called about once a second."""
        for name, gateway in list(self._gateways.items()):
            silent_us = now_us - gateway.seen_us
            if silent_us > VANISHED_SECONDS * MICRO and not gateway.vanished:
                gateway.vanished = True
                for station in gateway.called:
                    station.ledger.vanished(name, gateway.seen_us)
            if silent_us > _FORGET_US:
                del self._gateways[name]
                self._dropped += gateway.outbox.dropped + len(gateway.outbox)
                self._unhear(gateway)
        self.drain()
        self.settle(now_us)

    @property
    def dropped(self) -> int:
        """Observations and spendings that no gateway fetched."""
        return self._dropped + sum(g.outbox.dropped for g in self._gateways.values())

    @property
    def counting(self) -> bool:
        """Whether any ledger's counters can be read."""
        return any(station.counting for station in self.stations.values())

    def _gateway(self, name: str) -> _Gateway:
        gateway = self._gateways.get(name)
        if gateway is None:
            if len(self._gateways) >= _MOST_GATEWAYS:
                raise CrowdedError(f"more than {_MOST_GATEWAYS} gateways")
            gateway = self._gateways[name] = _Gateway(Outbox(self._numbers))
        return gateway

    def _place(self, gateway: _Gateway, places: list[Place]) -> None:
        """Find the ledger of each backend that a gateway lists."""
        self._unhear(gateway)
        gateway.listed, gateway.places = places, []
        gateway.called, gateway.unknown = {}, []
        for place in places:
            station = self._station(place)
            backend = None if station is None else station.hear(place.backend)
            if station is None or backend is None:
                gateway.places.append(None)
                gateway.unknown.append(place.backend)
            else:
                gateway.places.append((station, backend))
                gateway.called.setdefault(station, {})[backend] = place.backend

    def _station(self, place: Place) -> Station | None:
        if place.ledger:
            return self.stations.get(place.ledger)
        stations = self.stations.values()
        for station in stations:
            if station.names(place.backend):
                return station
        return next(iter(stations)) if len(stations) == 1 else None

    def _unhear(self, gateway: _Gateway) -> None:
        """Forget the backends that only this gateway speaks of."""
        others = [one for one in self._gateways.values() if one is not gateway]
        for station, called in gateway.called.items():
            spoken_of = {name for one in others for name in one.called.get(station, ())}
            station.forget(called.keys() - spoken_of)

    def _note(self, gateway: _Gateway, batch: Batch, now_us: int) -> None:
        """Hand the events to their ledgers."""
        name, open_, places = batch.gateway, gateway.open, gateway.places
        rest: list[Progress | End] = []
        for event in batch.events:
            if isinstance(event, Begin):
                place = places[event.backend]
                if place is None:
                    continue
                station, backend = place
                open_[event.id] = station
                station.ledger.begin(
                    (name, event.id),
                    now_us - event.age_us,
                    backend,
                    event.prompt_tokens,
                    event.prefill_microjoules,
                    event.prompt_may_change,
                    _decode_cost(event),
                )
            else:
                rest.append(event)
        self.events["begin"] += len(batch.events) - len(rest)
        while len(open_) > _MOST_OPEN:
            del open_[next(iter(open_))]
        for event in rest:
            known = open_.get(event.id)
            # Its begin may still come, by whichever ledger it belongs to.
            stations = (known,) if known is not None else tuple(gateway.called)
            key, at_us = (name, event.id), now_us - event.age_us
            for station in stations:
                if isinstance(event, Progress):
                    station.ledger.progress(key, at_us, event.tokens)
                else:
                    station.ledger.end(
                        key,
                        at_us,
                        event.tokens,
                        event.prompt_tokens,
                        event.cached_tokens,
                        event.queue_us,
                        unseen=event.unseen,
                    )
            self.events[_KINDS[type(event)]] += 1


def _decode_cost(event: Begin) -> DecodeCost | None:
    """Return what a gateway told of its generated tokens; None from one that told nothing."""
    if not event.own_nanojoules and event.shared_nanojoules <= 0:
        return None
    return DecodeCost(event.own_nanojoules, event.context_nanojoules, event.shared_nanojoules)


def _check(batch: Batch) -> None:
    """Raise BadBatchError where a name or a number is out of bounds."""
    if not 0 < len(batch.gateway) <= _MOST_NAME_CHARACTERS:
        raise BadBatchError(f"gateway: must have 1 to {_MOST_NAME_CHARACTERS} characters")
    if len(batch.backends) > _MOST_PLACES:
        raise BadBatchError(f"backends: more than {_MOST_PLACES}")
    if any(len(place.backend) > _MOST_NAME_CHARACTERS for place in batch.backends):
        raise BadBatchError(f"backends: a name is over {_MOST_NAME_CHARACTERS} characters")
    places, limit = len(batch.backends), _LIMIT
    for index, event in enumerate(batch.events):
        sane = 0 <= event.id < limit and 0 <= event.age_us < limit
        if isinstance(event, Begin):
            if not 0 <= event.backend < places:
                raise BadBatchError(f"events[{index}].backend: there is no {event.backend}")
            sane &= 0 <= event.prompt_tokens < limit and 0 <= event.prefill_microjoules < limit
            sane &= 0 <= event.own_nanojoules < limit and 0 <= event.context_nanojoules < limit
            sane &= event.shared_nanojoules < limit
        else:
            sane &= 0 <= event.tokens < limit
            if isinstance(event, End):
                for known in (event.prompt_tokens, event.cached_tokens, event.queue_us):
                    sane &= known is None or 0 <= known < limit
        if not sane:
            raise BadBatchError(f"events[{index}]: a number is out of bounds")
