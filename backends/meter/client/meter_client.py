"""The gateway's side of a meter: reports attempts in batches, off the hot path.

A request costs one object. Four times a second the objects are read, their unacknowledged events
are posted, and what the meter has settled comes back in the response. Nothing is queued: each batch
is made from the objects anew, so a lost batch is resent. An unreachable meter is retried each
second; requests that end meanwhile are `estimated`. Keep a request until its end is acknowledged:
an open request blocks settlement of all others.
"""

import asyncio
import copy
import itertools
import logging
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec

from backends.bearer import build_bearer
from backends.client import BackendClient
from backends.errors import BackendError
from backends.http.url import TlsFiles, parse_request_url
from backends.meter.client.ack_reader import read_ack
from backends.meter.client.request_handle import ABANDONED, ENDED, BackendMeter, MeteredAttempt
from backends.meter.method import ESTIMATED
from backends.meter.protocol import (
    EVENTS_PATH,
    BackendRef,
    EnergyObservation,
    EventBatch,
    HostEnergy,
    MeterAck,
    MeterEvent,
    UnattributedEnergy,
)

_log = logging.getLogger("joulegate.meter")

_PERIOD_SECONDS = 0.25
_HEARTBEAT_SECONDS = 1.0
_TIMEOUT_SECONDS = 2.0
_FAILURES = 2
"""After so many in a row, over more than as many timeouts, the meter counts as unreachable."""
_EXPIRE_SECONDS = 130.0
"""How long settled energy is waited for: longer than the meter waits for a missing event."""
_MOST_EVENTS = 8_000
_MOST_WAITING = 50_000
_MOST_ANSWER_BYTES = 2 << 20

_encoder = msgspec.json.Encoder()


class MeterLink:
    """The connection to one meter.

    The owner drains `finished_attempts` and `unattributed_energy`.
    """

    def __init__(
        self,
        root: str,
        client: BackendClient,
        *,
        secret: str | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self.label = urlsplit(root).netloc
        self.last_exchange_ok = False
        self.unmeasured_requests = 0
        """Requests that the meter should have measured and did not."""
        self.period_seconds: float | None = None
        self.finished_attempts: list[MeteredAttempt] = []
        self.unattributed_energy: list[UnattributedEnergy] = []
        self.host: HostEnergy | None = None
        self._url = parse_request_url(root + EVENTS_PATH, tls)
        self._headers = {"Content-Type": "application/json"}
        if secret:
            self._headers["Authorization"] = build_bearer(secret)
        self._client = client
        self._gateway_id = secrets.token_hex(8)
        self._serial = itertools.count(1)
        self._backend_meters: list[BackendMeter] = []
        self._open_requests: dict[int, MeteredAttempt] = {}
        self._ended: dict[int, MeteredAttempt] = {}
        self._awaiting_energy: dict[int, MeteredAttempt] = {}
        self._unacked_ends: dict[int, MeteredAttempt] = {}
        """Ends to resend: estimated here, perhaps still open at the meter."""
        self._meter_id = ""
        self._received = 0
        self._answered_at = time.monotonic()
        self._failures = 0
        self._unreachable = False
        self._last_failure = ""

    def add_backend(self, label: str, ledger: str) -> BackendMeter:
        """Add a backend; `ledger` "" leaves it to the meter where it belongs."""
        for known in self._backend_meters:
            if (known.label, known.ledger) == (label, ledger):
                return known
        place = BackendMeter(self, len(self._backend_meters), label, ledger)
        self._backend_meters.append(place)
        return place

    def begin_request(
        self, place: BackendMeter, prompt_tokens: int, prefill_microjoules: int
    ) -> MeteredAttempt:
        """Note a request; see BackendMeter."""
        metered = MeteredAttempt(next(self._serial), place, prompt_tokens, prefill_microjoules)
        self._open_requests[metered.id] = metered
        return metered

    def end_request(self, metered: MeteredAttempt) -> None:
        """Note that a request has ended; it is estimated at once where nothing measures it."""
        if self._open_requests.pop(metered.id, None) is None:
            return
        if (
            self._unreachable
            or not metered.backend_meter.has_ledger
            or metered.reported_stage == ABANDONED
        ):
            self._fall_back_to_estimate(metered)
            return
        self._ended[metered.id] = metered
        if len(self._ended) + len(self._awaiting_energy) > _MOST_WAITING:
            oldest = self._awaiting_energy or self._ended
            self._fall_back_to_estimate(oldest.pop(next(iter(oldest))))

    @property
    def has_work(self) -> bool:
        """Whether requests are still to be reported, or joules to be had for them."""
        kinds = (self._open_requests, self._ended, self._awaiting_energy, self._unacked_ends)
        return any(kinds)

    def close(self) -> None:
        """Estimate whatever has not been settled: no more batches are sent."""
        for kind in (self._open_requests, self._ended, self._awaiting_energy):
            for metered in kind.values():
                self._fall_back_to_estimate(metered)
            kind.clear()
        self._unacked_ends.clear()

    async def run(self) -> None:
        """Exchange batches until cancelled."""
        rested = _HEARTBEAT_SECONDS
        while True:
            await asyncio.sleep(_PERIOD_SECONDS)
            rested += _PERIOD_SECONDS
            busy = self.has_work and not self._unreachable
            if busy or rested >= _HEARTBEAT_SECONDS:
                rested = 0.0
                try:
                    while await self.exchange_batch():
                        pass
                except Exception as error:  # noqa: BLE001 - a bug here must not end metering
                    _log.exception("meter %s: a bug in exchanging a batch", self.label)
                    self._handle_failure(error)

    async def exchange_batch(self) -> bool:
        """Post one batch and handle the response; return whether there is more to post at once."""
        now = time.monotonic()
        events: list[MeterEvent] = []
        sent: list[MeteredAttempt] = []
        # While the meter is unreachable only an empty batch is sent, as a probe.
        kinds = () if self._unreachable else (self._ended, self._unacked_ends, self._open_requests)
        for metered in [one for kind in kinds for one in kind.values()]:
            if news := metered.collect_events(now):
                metered.reported_at = now
                events += news
                sent.append(metered)
                if len(events) >= _MOST_EVENTS:
                    break
        places = [BackendRef(place.label, place.ledger) for place in self._backend_meters]
        # Acknowledged is what is sent now: an attempt may go on while the batch travels.
        stages = [(m, m.progress_stage, m.tokens) for m in sent]
        batch = EventBatch(self._gateway_id, places, events, self._received)
        try:
            answer = await self._post_batch(_encoder.encode(batch))
        except (BackendError, TimeoutError) as error:
            self._handle_failure(error)
            return False
        self._handle_ack(answer, stages)
        return len(events) >= _MOST_EVENTS

    async def _post_batch(self, body: bytes) -> MeterAck:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            answer = await self._client.post(self._url, body, self._headers)
            try:
                read = await answer.read_body(_MOST_ANSWER_BYTES)
            finally:
                answer.close()
        if answer.status != HTTPStatus.OK:
            raise BackendError(f"status {answer.status}: {read[:200].decode('utf-8', 'replace')}")
        return read_ack(read)

    def _handle_ack(self, answer: MeterAck, stages: list[tuple[MeteredAttempt, int, int]]) -> None:
        now = time.monotonic()
        if not self.last_exchange_ok:
            _log.info("meter %s answers", self.label)
        self.last_exchange_ok = True
        self._unreachable = False
        self._failures = 0
        self._last_failure = ""
        self._answered_at = now
        self.period_seconds = answer.period_seconds
        self.host = answer.host
        if answer.meter != self._meter_id:
            if self._meter_id:  # this one never got the begin events of what was just sent
                stages = []
            self._reset_session(answer.meter)
        for metered, stage, tokens in stages:
            metered.reported_stage = stage
            metered.reported_tokens = tokens
            if stage == ENDED:
                self._unacked_ends.pop(metered.id, None)
                if self._ended.pop(metered.id, None) is not None:
                    metered.reported_at = now
                    self._awaiting_energy[metered.id] = metered
        unknown = set(answer.unknown)
        for place in self._backend_meters:
            if place.has_ledger and place.label in unknown:
                _log.error("meter %s has no ledger for backend %s", self.label, place.label)
            place.has_ledger = place.label not in unknown
        for observation in answer.observations:
            self._handle_observation(observation)
        self.unattributed_energy += [one for one in answer.spendings if one.number > self._received]
        self._received = max(
            self._received,
            max((one.number for one in answer.observations), default=0),
            max((one.number for one in answer.spendings), default=0),
        )
        self._expire_overdue(now)

    def _handle_observation(self, observation: EnergyObservation) -> None:
        for kind in (self._awaiting_energy, self._ended):
            metered = kind.pop(observation.id, None)
            if metered is not None:
                # Of an answer that nobody saw the meter's own number is the better estimate.
                guessed = metered.unseen and observation.microjoules > 0
                if observation.method == ESTIMATED and not guessed:
                    metered.reported_stage = ABANDONED  # no more need be said of it
                    self._fall_back_to_estimate(metered)
                    return
                metered.microjoules = observation.microjoules
                metered.method = observation.method
                self.finished_attempts.append(metered)
                return
        if observation.id in self._open_requests:  # it expired there: no event for too long
            self._open_requests[observation.id].reported_stage = ABANDONED

    def _reset_session(self, meter: str) -> None:
        """Forget what was acknowledged before the meter restarted."""
        if self._meter_id:
            _log.warning("meter %s restarted; what it had not settled is lost", self.label)
            self._unacked_ends.clear()
        self._meter_id = meter
        self._received = 0
        self._fall_back_matching(self._awaiting_energy, lambda _: True)
        for metered in (*self._open_requests.values(), *self._ended.values()):
            metered.reported_stage = metered.reported_tokens = 0

    def _expire_overdue(self, now: float) -> None:
        oldest = now - _EXPIRE_SECONDS
        # In the order of their ends, so the first that is young enough ends the search.
        while self._awaiting_energy:
            metered = next(iter(self._awaiting_energy.values()))
            if metered.reported_at > oldest:
                break
            self._fall_back_to_estimate(self._awaiting_energy.pop(metered.id))
        if any(not place.has_ledger for place in self._backend_meters):
            self._fall_back_matching(
                self._ended, lambda metered: not metered.backend_meter.has_ledger
            )

    def _handle_failure(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if said != self._last_failure:
            _log.warning("meter %s: %s; joules are estimated meanwhile", self.label, said)
        self._last_failure = said
        self.last_exchange_ok = False
        self._failures += 1
        # One slow answer is chance, and a network may be gone for a moment.
        silent_seconds = time.monotonic() - self._answered_at
        if self._failures >= _FAILURES and silent_seconds > _FAILURES * _TIMEOUT_SECONDS:
            self._unreachable = True
            self._fall_back_matching(self._ended, lambda _: True)
            self._fall_back_matching(self._awaiting_energy, lambda _: True)

    def _fall_back_matching(
        self, kind: dict[int, MeteredAttempt], which: Callable[[MeteredAttempt], bool]
    ) -> None:
        for number in [number for number, metered in kind.items() if which(metered)]:
            self._fall_back_to_estimate(kind.pop(number))

    def _fall_back_to_estimate(self, metered: MeteredAttempt) -> None:
        # A batch without a response may have arrived nonetheless.
        heard_of = (
            metered.reported_at
            and metered.reported_stage < ENDED
            and metered.backend_meter.has_ledger
        )
        if metered.ended_at and heard_of:
            owed = self._unacked_ends[metered.id] = copy.copy(metered)
            owed.on_energy = None
            if len(self._unacked_ends) > _MOST_WAITING:
                del self._unacked_ends[next(iter(self._unacked_ends))]
        metered.method = ESTIMATED
        self.unmeasured_requests += metered.on_energy is not None
        self.finished_attempts.append(metered)
