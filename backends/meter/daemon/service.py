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

from backends.meter.daemon.counter import MICRO, find_slowest_period
from backends.meter.daemon.ledger_runner import LedgerRunner, LedgerSpec
from backends.meter.daemon.outbox import GatewayOutbox
from backends.meter.protocol import (
    VANISHED_SECONDS,
    BackendRef,
    EventBatch,
    MeterAck,
    RequestBegin,
    RequestEnd,
    RequestProgress,
)

_FORGET_GATEWAY_US = 300 * MICRO
_REPORT_UNATTRIBUTED_EVERY_US = MICRO
_SETTLE_EVERY_US = MICRO // 2
"""However many gateways post: going through all requests costs more than taking a batch."""
_MAX_GATEWAYS = 256
_MAX_BACKENDS = 1000
_MAX_NAME_CHARACTERS = 200
_MAX_OPEN_REQUESTS = 50_000
_LIMIT = 1 << 53
_KINDS = {RequestBegin: "begin", RequestProgress: "progress", RequestEnd: "end"}


class BadBatchError(ValueError):
    """A batch that makes no sense; nothing of it was taken."""


class TooManyGatewaysError(Exception):
    """More gateways than a meter serves."""


class _GatewaySession:
    """What the meter knows of one gateway process."""

    def __init__(self, outbox: GatewayOutbox) -> None:
        self.outbox = outbox
        self.seen_us = 0
        self.vanished = False
        self.unattributed_reported_us = 0
        self.listed_backends: list[BackendRef] = []
        self.resolved_backends: list[tuple[LedgerRunner, str] | None] = []
        self.names_by_runner: dict[LedgerRunner, dict[str, str]] = {}
        """By ledger: its name of each backend, and the gateway's."""
        self.unknown_backends: list[str] = []
        self.runner_by_request: dict[int, LedgerRunner] = {}


class MeterService:
    """All ledgers of one process. Times are sampler.clock_us()."""

    def __init__(self, ledgers: Sequence[LedgerSpec], *, hz: float = 20.0) -> None:
        self.id = secrets.token_hex(8)
        self.runners = {spec.name: LedgerRunner(spec, hz=hz) for spec in ledgers}
        self.events = dict.fromkeys(_KINDS.values(), 0)
        self._numbers = itertools.count(1)
        self._gateways: dict[str, _GatewaySession] = {}
        self._dropped = 0
        self._settled_us = 0

    def receive_batch(self, batch: EventBatch, now_us: int) -> MeterAck:
        """Take a batch. Raises BadBatchError, CrowdedError."""
        _check_batch(batch)
        gateway = self._find_gateway(batch.gateway)
        gateway.seen_us = now_us
        gateway.vanished = False
        if batch.backends != gateway.listed_backends:
            self._resolve_backends(gateway, batch.backends)
        gateway.outbox.acknowledge_through(batch.received)
        self.apply_counter_events()
        self._apply_events(gateway, batch, now_us)
        if now_us - self._settled_us >= _SETTLE_EVERY_US:
            self.deliver_settled(now_us)
        if now_us - gateway.unattributed_reported_us >= _REPORT_UNATTRIBUTED_EVERY_US:
            for station, called in gateway.names_by_runner.items():
                for backend, idle, other in station.take_unattributed(called):
                    gateway.unattributed_reported_us = now_us
                    gateway.outbox.add_unattributed(called[backend], idle=idle, other=other)
        observations, spendings = gateway.outbox.list_unacknowledged()
        period_us = find_slowest_period(
            station.sampler.period_us for station in gateway.names_by_runner
        )
        seconds = period_us and period_us / MICRO
        return MeterAck(self.id, observations, spendings, seconds, gateway.unknown_backends)

    def record_token_counts(
        self, root: str, now_us: int, prompt_tokens: int, generated_tokens: int
    ) -> None:
        """Take a backend's own token counters."""
        for station in self.runners.values():
            if root in station.roots:
                station.ledger.record_token_counts(root, now_us, prompt_tokens, generated_tokens)

    def apply_counter_events(self) -> None:
        """Take in what the counters did."""
        for station in self.runners.values():
            station.apply_counter_events()

    def deliver_settled(self, now_us: int) -> None:
        """Give what is settled by now to whom it belongs."""
        self._settled_us = now_us
        for station in self.runners.values():
            for settled in station.collect_settled(now_us):
                name, request = settled.key
                gateway = self._gateways.get(name)
                if gateway is None:
                    self._dropped += 1
                else:
                    gateway.runner_by_request.pop(request, None)
                    gateway.outbox.add_observation(request, settled.microjoules, settled.method)

    def expire_gateways(self, now_us: int) -> None:
        """Look for gateways that are gone; to be called about once a second."""
        for name, gateway in list(self._gateways.items()):
            silent_us = now_us - gateway.seen_us
            if silent_us > VANISHED_SECONDS * MICRO and not gateway.vanished:
                gateway.vanished = True
                for station in gateway.names_by_runner:
                    station.ledger.end_gateway_requests(name, gateway.seen_us)
            if silent_us > _FORGET_GATEWAY_US:
                del self._gateways[name]
                self._dropped += gateway.outbox.dropped + len(gateway.outbox)
                self._forget_backends(gateway)
        self.apply_counter_events()
        self.deliver_settled(now_us)

    @property
    def dropped_messages(self) -> int:
        """Observations and spendings that no gateway fetched."""
        return self._dropped + sum(g.outbox.dropped for g in self._gateways.values())

    @property
    def has_counters(self) -> bool:
        """Whether any ledger's counters can be read."""
        return any(station.has_counters for station in self.runners.values())

    def _find_gateway(self, name: str) -> _GatewaySession:
        gateway = self._gateways.get(name)
        if gateway is None:
            if len(self._gateways) >= _MAX_GATEWAYS:
                raise TooManyGatewaysError(f"more than {_MAX_GATEWAYS} gateways")
            gateway = self._gateways[name] = _GatewaySession(GatewayOutbox(self._numbers))
        return gateway

    def _resolve_backends(self, gateway: _GatewaySession, places: list[BackendRef]) -> None:
        """Find the ledger of each backend that a gateway lists."""
        self._forget_backends(gateway)
        gateway.listed_backends, gateway.resolved_backends = places, []
        gateway.names_by_runner, gateway.unknown_backends = {}, []
        for place in places:
            station = self._find_runner(place)
            backend = None if station is None else station.register_backend(place.backend)
            if station is None or backend is None:
                gateway.resolved_backends.append(None)
                gateway.unknown_backends.append(place.backend)
            else:
                gateway.resolved_backends.append((station, backend))
                gateway.names_by_runner.setdefault(station, {})[backend] = place.backend

    def _find_runner(self, place: BackendRef) -> LedgerRunner | None:
        if place.ledger:
            return self.runners.get(place.ledger)
        stations = self.runners.values()
        for station in stations:
            if station.lists_backend(place.backend):
                return station
        return next(iter(stations)) if len(stations) == 1 else None

    def _forget_backends(self, gateway: _GatewaySession) -> None:
        """Forget the backends that only this gateway speaks of."""
        others = [one for one in self._gateways.values() if one is not gateway]
        for station, called in gateway.names_by_runner.items():
            spoken_of = {name for one in others for name in one.names_by_runner.get(station, ())}
            station.forget_backends(called.keys() - spoken_of)

    def _apply_events(self, gateway: _GatewaySession, batch: EventBatch, now_us: int) -> None:
        """Hand the events to their ledgers."""
        name, open_, places = batch.gateway, gateway.runner_by_request, gateway.resolved_backends
        rest: list[RequestProgress | RequestEnd] = []
        for event in batch.events:
            if isinstance(event, RequestBegin):
                place = places[event.backend]
                if place is None:
                    continue
                station, backend = place
                open_[event.id] = station
                station.ledger.begin_request(
                    (name, event.id),
                    now_us - event.age_us,
                    backend,
                    event.prompt_tokens,
                    event.prefill_microjoules,
                    event.prompt_may_change,
                )
            else:
                rest.append(event)
        self.events["begin"] += len(batch.events) - len(rest)
        while len(open_) > _MAX_OPEN_REQUESTS:
            del open_[next(iter(open_))]
        for event in rest:
            known = open_.get(event.id)
            # Its begin may still come, by whichever ledger it belongs to.
            stations = (known,) if known is not None else tuple(gateway.names_by_runner)
            key, at_us = (name, event.id), now_us - event.age_us
            for station in stations:
                if isinstance(event, RequestProgress):
                    station.ledger.record_progress(key, at_us, event.tokens)
                else:
                    station.ledger.end_request(
                        key,
                        at_us,
                        event.tokens,
                        event.prompt_tokens,
                        event.cached_tokens,
                        event.queue_us,
                    )
            self.events[_KINDS[type(event)]] += 1


def _check_batch(batch: EventBatch) -> None:
    """Raise BadBatchError where a name or a number is out of bounds."""
    if not 0 < len(batch.gateway) <= _MAX_NAME_CHARACTERS:
        raise BadBatchError(f"gateway: must have 1 to {_MAX_NAME_CHARACTERS} characters")
    if len(batch.backends) > _MAX_BACKENDS:
        raise BadBatchError(f"backends: more than {_MAX_BACKENDS}")
    if any(len(place.backend) > _MAX_NAME_CHARACTERS for place in batch.backends):
        raise BadBatchError(f"backends: a name is over {_MAX_NAME_CHARACTERS} characters")
    places, limit = len(batch.backends), _LIMIT
    for index, event in enumerate(batch.events):
        sane = 0 <= event.id < limit and 0 <= event.age_us < limit
        if isinstance(event, RequestBegin):
            if not 0 <= event.backend < places:
                raise BadBatchError(f"events[{index}].backend: there is no {event.backend}")
            sane &= 0 <= event.prompt_tokens < limit and 0 <= event.prefill_microjoules < limit
        else:
            sane &= 0 <= event.tokens < limit
            if isinstance(event, RequestEnd):
                for known in (event.prompt_tokens, event.cached_tokens, event.queue_us):
                    sane &= known is None or 0 <= known < limit
        if not sane:
            raise BadBatchError(f"events[{index}]: a number is out of bounds")
