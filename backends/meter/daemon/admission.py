"""Which events reach a ledger, and with what numbers: a sender's room, and what its claims can be.

PURE: no clock. Times are the meter's microseconds.

Rules:
- What has no room is refused (quotas); what cannot be is clipped (claims) and counted, and that
  request's energy is `estimated`, so that no refit learns from it.
- Where all claims together exceed what a backend counted, everybody who was there meanwhile is
  `estimated`. A gateway that alone can have done it is suspended for a minute at the third time
  where others share the ledger, and what it has open is charged nothing.
- A request without a token for nearly as long as its ledger waits, or until its gateway is gone,
  is charged nothing where the backend computed no such prompt, or where there are hundreds.
"""

import logging
from collections import Counter
from collections.abc import Iterable

from backends.meter.daemon.claims import (
    MAX_PREFILL_MICROJOULES_PER_TOKEN,
    MAX_PROMPT_TOKENS,
    MAX_TOKENS_PER_SECOND,
    BackendClaims,
    CounterReading,
    find_liar,
)
from backends.meter.daemon.counter import MICRO
from backends.meter.daemon.gateway_session import AdmittedRequest, GatewaySession
from backends.meter.daemon.ledger_runner import LedgerRunner
from backends.meter.daemon.quotas import MeterQuotas
from backends.meter.ledger.decode_weights import DecodeCost
from backends.meter.protocol import RequestBegin, RequestEnd, RequestProgress

_log = logging.getLogger("joulegate.meter")

_MARGIN_TOKENS = 256
_STALE_US = 110 * MICRO
"""Just less than a ledger waits for a first token."""
_MAX_STALE = 256
_BLAMES_UNTIL_SUSPENDED = 3
_SUSPENDED_US = 60 * MICRO
_LOG_EVERY_US = 60 * MICRO
_REPORTED_LATE_US = MICRO
_READ_AFTER_US = MICRO // 4


class EventAdmission:
    """The door between gateways and ledgers."""

    def __init__(self) -> None:
        self.quotas = MeterQuotas()
        self.clipped_tokens: Counter[str] = Counter()
        """Claimed tokens that cannot be, by kind: prompt, generated."""
        self.disputes: Counter[str] = Counter()
        """By ledger: times between two readings in which more was claimed than was counted."""
        self.suspensions = 0
        self._claims: dict[tuple[str, str], BackendClaims] = {}
        self._logged_us: dict[str, int] = {}

    def admit_begin(
        self,
        gateway: GatewaySession,
        event: RequestBegin,
        place: tuple[LedgerRunner, str],
        now_us: int,
    ) -> bool:
        """Hand a beginning to its ledger; False where there is no room."""
        runner, backend = place
        known = event.id in gateway.requests
        if not known and not self.quotas.has_room_for_request(gateway.usage):
            self.quotas.refuse_event("open_requests")
            self._log_seldom(gateway, now_us, "has too many requests open; more are refused")
            return False
        prompt = min(event.prompt_tokens, MAX_PROMPT_TOKENS)
        begin_us, before = now_us - event.age_us, runner.ledger.open_requests
        runner.ledger.begin_request(
            (gateway.name, event.id),
            begin_us,
            backend,
            prompt,
            min(event.prefill_microjoules, (prompt + 1) * MAX_PREFILL_MICROJOULES_PER_TOKEN),
            event.prompt_may_change,
            _decode_cost(event),
        )
        if not known and runner.ledger.open_requests > before:  # else it was settled long ago
            self.quotas.add_request(gateway.usage)
            gateway.requests[event.id] = AdmittedRequest(runner, backend, begin_us, now_us, prompt)
        return True

    def admit_count(
        self, gateway: GatewaySession, event: RequestProgress | RequestEnd, now_us: int
    ) -> bool:
        """Hand a count or an end to its ledger, clipped to what can be; False where refused."""
        request = gateway.requests.get(event.id)
        key, at_us, ends = (gateway.name, event.id), now_us - event.age_us, None
        if isinstance(event, RequestEnd):
            ends = event
        if request is None:
            # Its beginning may still come, by whichever ledger it belongs to.
            if not gateway.usage.admit_unknown(now_us):
                self.quotas.refuse_event("unknown_request")
                return False
            runners, tokens = tuple(gateway.names_by_runner), event.tokens
            prompt = None if ends is None else ends.prompt_tokens
        else:
            first = request.prompt_claimed is None
            if not (ends or first or self._has_room_for_count(gateway, request, now_us)):
                self.quotas.refuse_event("token_counts")
                return False
            runners = (request.runner,)
            tokens, prompt = self._clip_claim(gateway, request, event, now_us)
        for runner in runners:
            if ends is None:
                runner.ledger.record_progress(key, at_us, tokens)
            else:
                runner.ledger.end_request(
                    key,
                    at_us,
                    tokens,
                    prompt,
                    ends.cached_tokens,
                    ends.queue_us,
                    unseen=ends.unseen,
                )
        return True

    def settle_request(self, gateway: GatewaySession, number: int) -> bool:
        """Forget a request that is settled; whether its energy may be wrong."""
        request = gateway.requests.pop(number, None)
        if request is None:
            return False
        self.quotas.remove_requests(gateway.usage)
        return request.doubted

    def record_reading(
        self,
        runner: LedgerRunner,
        root: str,
        reading: CounterReading,
        all_: Iterable[GatewaySession],
    ) -> None:
        """Take a backend's own counters, and hold everybody's claims against them."""
        claims = self._claims.setdefault((runner.name, root), BackendClaims())
        since_us, share, by_gateway = claims.record_reading(reading)
        if not share:
            return
        self.disputes[runner.name] += 1
        there = list(all_)
        for gateway in there:
            for request in gateway.requests.values():
                ended_us = request.ended_us
                if request.runner is runner and (
                    ended_us is None or ended_us > since_us - _REPORTED_LATE_US
                ):
                    request.doubted = True
        _log.warning(
            "ledger %s: %.0f%% of the tokens claimed of %s were not counted there; the joules of"
            " who was there are estimated",
            runner.name,
            100 * min(share, 1.0),
            root,
        )
        liar = find_liar(share, by_gateway)
        for gateway in there:
            if gateway.name == liar:
                self._blame(gateway, reading.at_us)

    def void_stale_requests(
        self, gateway: GatewaySession, now_us: int, older_than_us: int = _STALE_US
    ) -> None:
        """Charge nothing to requests that never came to a token and cannot have been computed."""
        stale = []
        for number, request in gateway.requests.items():
            if request.arrived_us > now_us - older_than_us:
                break
            if request.prompt_claimed is None and request.ended_us is None:
                stale.append((number, request))
        for number, request in stale:
            limits = self._limit_tokens(request, now_us)
            if len(stale) > _MAX_STALE or (limits and limits[0] < request.prompt_tokens):
                self._void_request(gateway, number, request, now_us)

    def forget_gateway(self, gateway: GatewaySession) -> None:
        """Free what a gateway has of the quotas."""
        self.quotas.forget_sender(gateway.usage)
        gateway.requests.clear()
        self._logged_us.pop(gateway.name, None)

    def _has_room_for_count(
        self, gateway: GatewaySession, request: AdmittedRequest, now_us: int
    ) -> bool:
        settled_us = request.runner.ledger.settled_us
        return self.quotas.admit_count(gateway.usage, now_us, settled_us)

    def _limit_tokens(self, request: AdmittedRequest, now_us: int) -> tuple[int, int] | None:
        claims = self._claims.get((request.runner.name, request.backend))
        return claims.limit_tokens(request.begin_us, now_us) if claims else None

    def _was_counted(self, request: AdmittedRequest) -> bool:
        """Whether its backend's counters were read after its prompt had been computed."""
        claims = self._claims.get((request.runner.name, request.backend))
        since_us = request.prompt_claimed_us + _READ_AFTER_US
        return bool(claims and request.prompt_claimed_us and claims.read_us > since_us)

    def _clip_claim(
        self,
        gateway: GatewaySession,
        request: AdmittedRequest,
        event: RequestProgress | RequestEnd,
        now_us: int,
    ) -> tuple[int, int | None]:
        """Return the generated and prompt tokens that can be."""
        ends = event if isinstance(event, RequestEnd) else None
        tokens, prompt = event.tokens, ends.prompt_tokens if ends else None
        limits = (
            None if request.runner.runs_faster_than_life else self._limit_tokens(request, now_us)
        )
        if not request.runner.runs_faster_than_life:
            seconds = max(now_us - event.age_us - request.begin_us, 0) / MICRO
            tokens = min(tokens, _MARGIN_TOKENS + round(MAX_TOKENS_PER_SECOND * seconds))
            request.doubted |= tokens < event.tokens
        if limits and tokens > limits[1]:
            tokens = limits[1]
            request.doubted |= ends is not None  # else the counter may only be behind
        claimed = request.prompt_tokens if prompt is None else prompt
        # A prompt that was computed after the last reading is held to the next with all others.
        if ends and limits and claimed > limits[0] and self._was_counted(request):
            self.clipped_tokens["prompt"] += claimed - limits[0]
            request.doubted = True
            prompt = limits[0]
        over = event.tokens - tokens
        if over > request.clipped_tokens:
            self.clipped_tokens["generated"] += over - request.clipped_tokens
            request.clipped_tokens = over
        if over or (ends and prompt != ends.prompt_tokens):
            self._log_seldom(gateway, now_us, "claims tokens that its backend cannot have had")
        self._note_claim(gateway, request, tokens, claimed, now_us)
        if ends:
            request.ended_us = now_us
        return tokens, prompt

    def _note_claim(
        self,
        gateway: GatewaySession,
        request: AdmittedRequest,
        tokens: int,
        prompt: int,
        now_us: int,
    ) -> None:
        new, told = max(tokens - request.tokens, 0), request.prompt_claimed or 0
        request.tokens += new
        if request.prompt_claimed is None:
            request.prompt_claimed_us = now_us
        request.prompt_claimed = prompt
        claims = self._claims.get((request.runner.name, request.backend))
        if claims and claims.covers(request.begin_us, now_us):
            claims.generated.add_claim(gateway.name, new)
            claims.prompts.add_claim(gateway.name, prompt - told)

    def _blame(self, gateway: GatewaySession, now_us: int) -> None:
        gateway.blames += 1
        if gateway.blames < _BLAMES_UNTIL_SUSPENDED:
            return
        self.suspensions += 1
        gateway.blames = _BLAMES_UNTIL_SUSPENDED - 1
        gateway.suspended_until_us = now_us + _SUSPENDED_US
        _log.warning("gateway %s at %s is suspended", gateway.name, gateway.usage.address)
        for number, request in gateway.requests.items():
            if request.ended_us is None:
                self._void_request(gateway, number, request, now_us)

    def _void_request(
        self, gateway: GatewaySession, number: int, request: AdmittedRequest, now_us: int
    ) -> None:
        """End a request as though it had never been computed."""
        request.doubted = True
        request.ended_us = now_us
        request.runner.ledger.end_request(
            (gateway.name, number), request.begin_us, 0, prompt_tokens=0
        )
        self.quotas.refuse_event("voided")

    def _log_seldom(self, gateway: GatewaySession, now_us: int, what: str) -> None:
        if now_us - self._logged_us.get(gateway.name, -_LOG_EVERY_US) >= _LOG_EVERY_US:
            self._logged_us[gateway.name] = now_us
            _log.warning("gateway %s at %s %s", gateway.name, gateway.usage.address, what)


def _decode_cost(event: RequestBegin) -> DecodeCost | None:
    """Return what a gateway told of its generated tokens; None from one that told nothing."""
    if not event.own_nanojoules and event.shared_nanojoules <= 0:
        return None
    return DecodeCost(event.own_nanojoules, event.context_nanojoules, event.shared_nanojoules)
