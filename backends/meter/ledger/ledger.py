"""The energy of a set of devices, attributed to the requests that used it.

PURE: no clock, no I/O, nothing random. Times are integer microseconds of one monotonic clock,
energy is integer microjoules.

Rules:
- Each advance of the counter closes an interval. Prompt tokens count over their prefill, generated
  tokens over the gap before the event that reported them. Prefill first, the rest to decode;
  nothing of either: idle, and so is the part of it in which no request was there, at the power of
  idle intervals. Requests + other + idle + unsettled = advanced, exactly, always.
- Intervals settle oldest first, once everyone in flight is known up to their end; `cap_us` after
  it with what is known. `stall_us` without an event counts as no tokens.
- A request settles once, when it has ended and its intervals are settled. `estimated` says that
  part of it was not seen (no counter, reported too late, or its tokens are a guess), `coarse` that
  an interval was long, that models met whom no profile can weigh, or that its backend computed
  something nobody told of, `exclusive` that nobody else used the devices in its time.
- The result does not depend on the order of events between two calls of `settle`.
- Memory is bounded: what goes beyond is refused and counted, intervals are merged.
"""

from collections import deque
from operator import attrgetter

from backends.meter.ledger.apportion import RequestKey
from backends.meter.ledger.attribution import attribute_interval
from backends.meter.ledger.decode_weights import DecodeCost
from backends.meter.ledger.idle_power import IdlePower
from backends.meter.ledger.intervals import MAX_INTERVALS, EnergyInterval, merge_pairs
from backends.meter.ledger.prefill_start import PrefillOrder
from backends.meter.ledger.request import MAX_FRESH, NEVER_US, RequestTimeline
from backends.meter.ledger.settled import SettledRequest, settle_request
from backends.meter.ledger.unreported import UnattributedTokens

LAG_US = 1_000_000  # a batch with a beginning may be on its way for so long
MAX_ORPHANS = 1_000
_ORPHAN_US = 10_000_000
_CAPS_UNTIL_IGNORED = 2  # a request that is silent for so long holds up nothing
_CAPS_UNTIL_GIVEN_UP = 10  # and for so long has ended


class EnergyLedger:
    """One set of devices and the requests that share it."""

    def __init__(
        self,
        name: str,
        *,
        cap_us: int = 120_000_000,
        stall_us: int = 2_000_000,
        coarse_above_us: int = 1_000_000,
        coarse: bool = False,
        max_requests: int = 50_000,
    ) -> None:
        self.name = name
        self.coarse = coarse  # may be set once that is known of the source
        self.advanced_microjoules = self.attributed_microjoules = self.idle_microjoules = 0
        """Microjoules: what the counters moved by, what requests got, what nobody used."""
        self.late_events = 0  # about requests that were settled already
        self.dropped_events = 0  # refused for want of room, or their beginning never came
        self.settled_us = -NEVER_US  # the horizon: everything up to here is divided
        self._cap_us = cap_us
        self._stall_us = stall_us
        self._coarse_above_us = coarse_above_us
        self._max_requests = max_requests
        self._at_us = -NEVER_US
        self._counter_lost = True
        self._intervals: deque[EnergyInterval] = deque()
        self._requests: dict[RequestKey, RequestTimeline] = {}
        self._orphans: dict[RequestKey, RequestTimeline] = {}
        self._settled_keys: set[RequestKey] = set()
        self._settled_order: deque[RequestKey] = deque()
        self._unattributed_tokens: dict[str, UnattributedTokens] = {}
        self._prefill_order = PrefillOrder()
        self._idle_power = IdlePower()

    @property
    def other_by_backend(self) -> dict[str, int]:
        """Microjoules of tokens that nobody reported."""
        return {
            name: unreported.microjoules for name, unreported in self._unattributed_tokens.items()
        }

    @property
    def other_microjoules(self) -> int:
        """The same, of all backends."""
        return sum(unreported.microjoules for unreported in self._unattributed_tokens.values())

    @property
    def unsettled_microjoules(self) -> int:
        """Microjoules that are not divided yet."""
        return (
            self.advanced_microjoules
            - self.attributed_microjoules
            - self.idle_microjoules
            - self.other_microjoules
        )

    @property
    def open_requests(self) -> int:
        """Requests that have begun and are not settled."""
        return len(self._requests)

    def start_counter(self, at_us: int) -> None:
        """The counter is known from here on."""
        self._close_interval(at_us, 0, hole=True)
        self._counter_lost = False

    def advance_counter(self, at_us: int, microjoules: int, *, hole: bool = False) -> None:
        """The counters moved by that much (`hole`: not surely). Raises ValueError if they fell."""
        if microjoules < 0:
            raise ValueError(f"a counter moved by {microjoules} microjoules")
        self.advanced_microjoules += microjoules
        self._close_interval(
            max(at_us, self._at_us + 1), microjoules, hole=self._counter_lost or hole
        )
        self._counter_lost = False

    def lose_counter(self, at_us: int) -> None:
        """The counter is not known from here on, until `start_counter`."""
        self._close_interval(at_us, 0, hole=True)
        self._counter_lost = True

    def begin_request(
        self,
        key: RequestKey,
        at_us: int,
        backend: str,
        prompt_tokens: int,
        prefill_microjoules: int,
        prompt_may_change: bool,
        decode_cost: DecodeCost | None = None,
    ) -> None:
        """A request was sent to a backend."""
        request = self._requests.get(key)
        if request is None:
            if key in self._settled_keys:
                self.late_events += 1
                return
            if len(self._requests) >= self._max_requests:
                self.dropped_events += 1
                return
            request = self._requests[key] = self._orphans.pop(key, RequestTimeline(key))
        cost = decode_cost or ()
        request.note_begin(
            at_us, backend, prompt_tokens, prefill_microjoules, prompt_may_change, cost
        )

    def record_progress(self, key: RequestKey, at_us: int, tokens: int) -> None:
        """By then it had so many tokens, all counted; the first such event ends its prefill."""
        request = self._find_request(key)
        if request is not None:
            request.note_progress(at_us, tokens)
            if len(request.noted_counts) > MAX_FRESH:
                request.thin_events(self.settled_us)

    def end_request(
        self,
        key: RequestKey,
        at_us: int,
        tokens: int,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        queue_us: int | None = None,
        *,
        unseen: bool = False,
    ) -> None:
        """It is over; None where the backend did not say. `unseen`: its tokens are a guess."""
        request = self._find_request(key)
        if request is not None:
            prompt, cached, queue = (
                -1 if n is None else n for n in (prompt_tokens, cached_tokens, queue_us)
            )
            request.note_end(at_us, tokens, prompt, cached, queue, unseen)

    def end_gateway_requests(self, gateway: str, at_us: int) -> None:
        """End all that a gateway has open: it is gone."""
        for request in self._requests.values():
            if request.key[0] == gateway and request.noted_end is None:
                request.force_end(at_us)
        for key in [key for key in self._orphans if key[0] == gateway]:
            del self._orphans[key]

    def enable_token_polling(self, backend: str) -> None:
        """Polls of the backend's own counters will come."""
        if backend not in self._unattributed_tokens:
            self._unattributed_tokens[backend] = UnattributedTokens(backend)

    def record_token_counts(
        self,
        backend: str,
        at_us: int,
        prompt_tokens_total: int,
        generated_tokens_total: int,
        preemptions_total: int = 0,
    ) -> None:
        """The backend's own counters, cumulative; one that falls has been reset."""
        self.enable_token_polling(backend)
        totals = (prompt_tokens_total, generated_tokens_total, preemptions_total)
        self._unattributed_tokens[backend].record_token_counts(at_us, *totals)

    def settle_requests(self, now_us: int) -> list[SettledRequest]:
        """Divide what is known by now; the requests that are settled thereby."""
        if now_us - self._at_us > self._cap_us and not self._counter_lost:
            self.lose_counter(self._at_us)  # nobody has read the counter for so long
        horizon_us = self._advance_horizon(now_us)
        self._forget_orphans(now_us)
        if self._counter_lost:
            self._close_interval(horizon_us, 0, hole=True)
        requests = self._requests.values()
        settled = self._finish_requests([r for r in requests if r.end_us <= self.settled_us])
        if not self._intervals or self._intervals[0].end_us > horizon_us:
            return settled
        waiting = sorted(requests, key=attrgetter("begin_us"), reverse=True)
        active: list[RequestTimeline] = []
        while self._intervals and self._intervals[0].end_us <= horizon_us:
            span = self._intervals.popleft()
            while waiting and waiting[-1].begin_us < span.end_us:
                active.append(waiting.pop())
            self._attribute_interval(span, active, now_us)
            self.settled_us = span.end_us
            ended = [r for r in active if r.end_us <= span.end_us]
            if ended:
                active = [r for r in active if r.end_us > span.end_us]
                settled += self._finish_requests(ended)
        return settled

    def _find_request(self, key: RequestKey) -> RequestTimeline | None:
        """The request that an event is about, perhaps before its beginning is known."""
        request = self._requests.get(key) or self._orphans.get(key)
        if request is None:
            if key in self._settled_keys:
                self.late_events += 1
            elif len(self._orphans) >= MAX_ORPHANS:
                self.dropped_events += 1
            else:
                request = self._orphans[key] = RequestTimeline(key)
        return request

    def _close_interval(self, at_us: int, microjoules: int, *, hole: bool) -> None:
        """Close the span that ends there."""
        if at_us <= self._at_us:
            return
        self._intervals.append(EnergyInterval(self._at_us, at_us, microjoules, hole))
        self._at_us = at_us
        if len(self._intervals) > MAX_INTERVALS:
            self._intervals = merge_pairs(self._intervals)

    def _advance_horizon(self, now_us: int) -> int:
        """Take in what was noted; up to where everything is known."""
        settled_us = self.settled_us
        known_us = now_us - LAG_US
        for request in self._requests.values():
            if request.has_noted:
                self._apply_request_events(request)
            if request.end_us == NEVER_US:
                known_us = min(known_us, self._known_until_us(request, now_us))
        self._prefill_order.resolve_starts(settled_us)
        requests, polled = self._requests.values(), self._unattributed_tokens.values()
        limits = [one.advance_limit_us(now_us, known_us, settled_us, requests) for one in polled]
        return max(min(limits, default=known_us), now_us - self._cap_us)

    def _apply_request_events(self, request: RequestTimeline) -> None:
        request.apply_events(self.settled_us)
        if request.prefilled_us != NEVER_US and not request.in_prefill_order:
            self._prefill_order.add_request(request)
            if request.backend in self._unattributed_tokens:
                self._unattributed_tokens[request.backend].learn_prompt_cost(request)

    def _known_until_us(self, request: RequestTimeline, now_us: int) -> int:
        """Up to where an open request is known."""
        last_us = request.last_us
        if last_us < now_us - _CAPS_UNTIL_IGNORED * self._cap_us:
            if last_us < now_us - _CAPS_UNTIL_GIVEN_UP * self._cap_us:
                request.force_end(last_us)
                self._apply_request_events(request)
            return now_us
        first_us = request.first_us
        if first_us == NEVER_US or (request.prompt_may_change and self.settled_us < first_us):
            return request.begin_us
        return max(last_us, now_us - self._stall_us)

    def _forget_orphans(self, now_us: int) -> None:
        for key, orphan in list(self._orphans.items()):
            if orphan.latest_us < now_us - _ORPHAN_US:
                del self._orphans[key]
                self.dropped_events += 1

    def _attribute_interval(
        self, span: EnergyInterval, active: list[RequestTimeline], now_us: int
    ) -> None:
        long = span.end_us - span.start_us > self._coarse_above_us
        if span.hole or long:
            for request in active:
                request.incomplete |= span.hole
                request.coarse |= long
        other, polled = self.other_microjoules, self._unattributed_tokens.values()
        idle = self._idle_power.find_idle_energy(span, active, polled) if active else 0
        used = span._replace(microjoules=span.microjoules - idle) if idle else span
        if attribute_interval(used, active, polled, now_us):
            self.attributed_microjoules += used.microjoules - (self.other_microjoules - other)
            self.idle_microjoules += idle
        else:
            self.idle_microjoules += span.microjoules
            if not active:
                self._idle_power.learn(span)

    def _finish_requests(self, requests: list[RequestTimeline]) -> list[SettledRequest]:
        settled = []
        for request in requests:
            settled.append(settle_request(request, coarse=self.coarse))
            del self._requests[request.key]
            self._settled_keys.add(request.key)
            self._settled_order.append(request.key)
            if len(self._settled_order) > self._max_requests:
                self._settled_keys.discard(self._settled_order.popleft())
        return settled
