"""The meter itself, without its sockets: batches in, answers out.

Rules:
- A batch that makes no sense is refused whole; its begins come first, because it is in no order.
  What its sender has no room for, or cannot have seen, is refused or clipped (admission.py).
- A backend belongs to the ledger the gateway names, else to the one whose config names it, else
  to the only one there is; else it is unknown and its events are dropped.
- Idle and other energy is told to the first gateway that posts and knows the backend, at most
  once a second.
- A gateway silent for 10 s has vanished: its requests end with its last batch. After 300 s it is
  forgotten, or earlier where its room is wanted.
"""

import itertools
import secrets
from collections.abc import Sequence

from backends.meter.daemon.admission import EventAdmission
from backends.meter.daemon.claims import CounterReading
from backends.meter.daemon.counter import MICRO, find_slowest_period
from backends.meter.daemon.gateway_session import GatewaySession
from backends.meter.daemon.host_counter import HostCounter
from backends.meter.daemon.ledger_runner import LedgerRunner, LedgerSpec
from backends.meter.daemon.outbox import GatewayOutbox
from backends.meter.daemon.quotas import MAX_GATEWAYS, MAX_GATEWAYS_PER_ADDRESS
from backends.meter.daemon.sampler import CounterSampler
from backends.meter.daemon.token_poller import TokenTotals
from backends.meter.protocol import (
    VANISHED_SECONDS,
    BackendRef,
    EventBatch,
    MeterAck,
    RequestBegin,
    RequestEnd,
    RequestProgress,
)
from backends.meter.sources.source import EnergySource

_FORGET_GATEWAY_US = 300 * MICRO
_REPORT_UNATTRIBUTED_EVERY_US = MICRO
_SETTLE_EVERY_US = MICRO // 2
"""However many gateways post: going through all requests costs more than taking a batch."""
_MAX_BACKENDS = 256
_MAX_NAME_CHARACTERS = 200
_LIMIT = 1 << 53
_KINDS = {RequestBegin: "begin", RequestProgress: "progress", RequestEnd: "end"}


class BadBatchError(ValueError):
    """A batch that makes no sense; nothing of it was taken."""


class TooManyGatewaysError(Exception):
    """More gateways than a meter serves, in all or of one address, or of a suspended one."""


class MeterService:
    """All ledgers of one process. Times are clock.clock_us()."""

    def __init__(
        self,
        ledgers: Sequence[LedgerSpec],
        *,
        hz: float = 20.0,
        host_source: EnergySource | None = None,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.runners = {spec.name: LedgerRunner(spec, hz=hz) for spec in ledgers}
        self.host = None if host_source is None else HostCounter(host_source)
        self.events = dict.fromkeys(_KINDS.values(), 0)
        self._numbers = itertools.count(1)
        self.admission = EventAdmission()
        self._gateways: dict[str, GatewaySession] = {}
        self._dropped = 0
        self._settled_us = 0

    def receive_batch(self, batch: EventBatch, now_us: int, address: str = "") -> MeterAck:
        """Take a batch from an address. Raises BadBatchError, TooManyGatewaysError."""
        _check_batch(batch)
        gateway = self._find_gateway(batch.gateway, address, now_us)
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
        host = None if self.host is None else self.host.read_share(gateway)
        return MeterAck(self.id, observations, spendings, seconds, gateway.unknown_backends, host)

    def record_token_counts(self, root: str, now_us: int, totals: TokenTotals) -> None:
        """Take a backend's own token counters."""
        for station in self.runners.values():
            if root in station.roots:
                prompts = totals.all_prompt_tokens
                if prompts is None:
                    prompts = totals.prompt_tokens
                reading = CounterReading(now_us, prompts, totals.generated_tokens)
                self.admission.record_reading(station, root, reading, self._gateways.values())
                station.ledger.record_token_counts(
                    root,
                    now_us,
                    totals.prompt_tokens,
                    totals.generated_tokens,
                    totals.preemptions,
                )

    def apply_counter_events(self) -> None:
        """Take in what the counters did."""
        for station in self.runners.values():
            station.apply_counter_events()
        if self.host is not None:
            kinds = {runner.source.kind for runner in self.runners.values()}
            self.host.told = self.host.source.kind not in kinds
            self.host.apply_counter_events(list(self._gateways.values()))

    @property
    def samplers(self) -> list[CounterSampler]:
        """Every thread that reads counters."""
        host = () if self.host is None else (self.host.sampler,)
        return [*(runner.sampler for runner in self.runners.values()), *host]

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
                    doubted = self.admission.settle_request(gateway, request)
                    method = "estimated" if doubted else settled.method
                    gateway.outbox.add_observation(request, settled.microjoules, method)

    def expire_gateways(self, now_us: int) -> None:
        """Look for gateways that are gone; to be called about once a second."""
        for name, gateway in list(self._gateways.items()):
            silent_us = now_us - gateway.seen_us
            if silent_us > VANISHED_SECONDS * MICRO and not gateway.vanished:
                gateway.vanished = True
                self.admission.void_stale_requests(gateway, now_us, older_than_us=0)
                for station in gateway.names_by_runner:
                    station.ledger.end_gateway_requests(name, gateway.seen_us)
            if silent_us > _FORGET_GATEWAY_US:
                self._forget_gateway(gateway)
            else:
                self.admission.void_stale_requests(gateway, now_us)
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

    def _find_gateway(self, name: str, address: str, now_us: int) -> GatewaySession:
        gateway = self._gateways.get(name)
        if gateway is None:
            near = [one for one in self._gateways.values() if one.usage.address == address]
            if any(one.suspended_until_us > now_us for one in near):
                raise TooManyGatewaysError("a gateway of this address claims what cannot be")
            self._make_room(near, MAX_GATEWAYS_PER_ADDRESS, "of one address")
            self._make_room(list(self._gateways.values()), MAX_GATEWAYS, "in all")
            outbox = GatewayOutbox(self._numbers)
            gateway = self._gateways[name] = GatewaySession(name, outbox, address)
        return gateway

    def _make_room(self, among: list[GatewaySession], most: int, where: str) -> None:
        """Forget the gateway that has been gone for longest, if there are too many."""
        if len(among) < most:
            return
        longest = min(among, key=lambda one: one.seen_us)
        if not longest.vanished:
            raise TooManyGatewaysError(f"more than {most} gateways {where}")
        self._forget_gateway(longest)

    def _forget_gateway(self, gateway: GatewaySession) -> None:
        del self._gateways[gateway.name]
        self._dropped += gateway.outbox.dropped + len(gateway.outbox)
        self._forget_backends(gateway)
        self.admission.forget_gateway(gateway)

    def _resolve_backends(self, gateway: GatewaySession, places: list[BackendRef]) -> None:
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

    def _forget_backends(self, gateway: GatewaySession) -> None:
        """Forget the backends that only this gateway speaks of."""
        others = [one for one in self._gateways.values() if one is not gateway]
        for station, called in gateway.names_by_runner.items():
            spoken_of = {name for one in others for name in one.names_by_runner.get(station, ())}
            station.forget_backends(called.keys() - spoken_of)

    def _apply_events(self, gateway: GatewaySession, batch: EventBatch, now_us: int) -> None:
        """Hand the events to their ledgers."""
        admission, places = self.admission, gateway.resolved_backends
        if gateway.suspended_until_us > now_us:
            admission.quotas.refused["suspended"] += len(batch.events)
            return
        rest: list[RequestProgress | RequestEnd] = []
        for event in batch.events:
            if not isinstance(event, RequestBegin):
                rest.append(event)
                continue
            place = places[event.backend]
            if place is not None and admission.admit_begin(gateway, event, place, now_us):
                self.events["begin"] += 1
        for event in rest:
            if admission.admit_count(gateway, event, now_us):
                self.events[_KINDS[type(event)]] += 1


def _check_batch(batch: EventBatch) -> None:
    """Raise BadBatchError where a name or a number is out of bounds."""
    if not 0 < len(batch.gateway) <= _MAX_NAME_CHARACTERS:
        raise BadBatchError(f"gateway: must have 1 to {_MAX_NAME_CHARACTERS} characters")
    if len(batch.backends) > _MAX_BACKENDS:
        raise BadBatchError(f"backends: more than {_MAX_BACKENDS}")
    longest = max(
        (len(name) for one in batch.backends for name in (one.backend, one.ledger)), default=0
    )
    if longest > _MAX_NAME_CHARACTERS:
        raise BadBatchError(f"backends: a name is over {_MAX_NAME_CHARACTERS} characters")
    places, limit = len(batch.backends), _LIMIT
    for index, event in enumerate(batch.events):
        sane = 0 <= event.id < limit and 0 <= event.age_us < limit
        if isinstance(event, RequestBegin):
            if not 0 <= event.backend < places:
                raise BadBatchError(f"events[{index}].backend: there is no {event.backend}")
            sane &= 0 <= event.prompt_tokens < limit and 0 <= event.prefill_microjoules < limit
            sane &= 0 <= event.own_nanojoules < limit and 0 <= event.context_nanojoules < limit
            sane &= event.shared_nanojoules < limit
        else:
            sane &= 0 <= event.tokens < limit
            if isinstance(event, RequestEnd):
                for known in (event.prompt_tokens, event.cached_tokens, event.queue_us):
                    sane &= known is None or 0 <= known < limit
        if not sane:
            raise BadBatchError(f"events[{index}]: a number is out of bounds")
