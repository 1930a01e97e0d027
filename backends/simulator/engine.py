"""Continuous batching in discrete steps, with the time and energy of each.

PURE: this file knows no clock, socket or event loop. Whoever drives it calls `step()` while there
is work and `idle()` for the time in between, and decides how long a simulated second lasts.

Rules:
- A request alone takes exactly T(i, o) seconds and E(i, o) joules of its truth's forms.
- Waiting requests are prefilled in groups (up to a token budget) as vLLM schedules them. A group
  takes as long as its slowest member; a long prefill is cut into steps of at most 0.25 s, and those
  that decode already get one step between two of them, so that no stream stands still for long.
- A decode step gives each decoding request one token and lasts as long as the slowest of them
  needs: it is one forward pass over the batch, so everyone waits for all of it (hence max, not
  mean). Equal requests therefore follow the `load` form exactly.
- The shared joules of a step (reading the weights) are paid once: each of n requests carries 1/n of
  its own shared part, and all of the rest. So no request ever costs more for having company.
- The counter is an integer of microjoules. Each request's own running total is rounded, and the
  counter advances by the integer differences: requests + idle = counter, exactly, always, and
  each request is within half a microjoule of its real number (rounding each *step* by largest
  remainder would conserve too, but would let a request drift by a microjoule per token).
"""

from collections import deque
from dataclasses import dataclass
from math import ceil, isfinite
from random import Random

from backends.simulator.cost_model import CostModel

MAX_PREFILL_STEP_SECONDS = 0.25
MAX_BATCHED_TOKENS = 2048  # prompt tokens prefilled together, vLLM's usual budget
_MICRO = 1e6


@dataclass(frozen=True, slots=True)
class RequestCost:
    """What one request really cost, once it has ended."""

    request_id: str
    tokens_in: int
    tokens_out: int
    """New tokens it got (fewer than asked for when aborted)."""
    prefill_joules: float
    decode_joules: float
    microjoules: int
    """The same energy as the counter saw it."""
    queue_seconds: float
    """From submission to the start of its prefill."""
    seconds: float
    """From submission to its last token."""
    first_token_seconds: float
    """From submission to its first token; 0 if there was none."""
    aborted: bool = False

    @property
    def total_joules(self) -> float:
        """Prefill and decode together."""
        return self.prefill_joules + self.decode_joules


@dataclass(frozen=True, slots=True)
class EngineStep:
    """One forward pass: how long, how much, who got tokens and who is done."""

    duration_seconds: float
    joules: float
    microjoules: int
    """What the counter advanced by."""
    tokens: list[tuple[str, int]]
    finished: list[RequestCost]


class _EngineRequest:
    """One request on its way through the engine."""

    __slots__ = (
        "admitted_at",
        "decode_joules",
        "first_token_at",
        "load_seconds",
        "microjoules",
        "own_joules",
        "prefill_joules",
        "prefill_seconds",
        "prefill_total",
        "request_id",
        "shared_joules",
        "step_seconds",
        "submitted_at",
        "tokens_in",
        "tokens_left",
        "tokens_out",
    )  # fmt: skip

    def __init__(self, request_id: str, tokens_in: int, tokens_out: int, now: float) -> None:
        self.request_id = request_id
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out
        self.tokens_left = tokens_out
        self.submitted_at = now
        self.admitted_at = now
        self.first_token_at = 0.0
        self.prefill_joules = 0.0  # spent so far
        self.decode_joules = 0.0
        self.microjoules = 0

    def fix_costs(self, truth: CostModel, rng: Random) -> None:
        """Fix what this request costs; a truth that is replaced later leaves it alone."""
        tokens = (self.tokens_in, self.tokens_out)
        time_factor, energy_factor = truth.draw_factor(rng), truth.draw_factor(rng)
        seconds = truth.split_seconds(*tokens, time_factor)
        joules = truth.split_joules(*tokens, energy_factor)
        self.prefill_seconds = seconds.prefill
        self.prefill_total = joules.prefill
        self.step_seconds = seconds.per_token
        self.load_seconds = (  # added to a step per other running request
            max(0.0, time_factor * truth.seconds.all_coefficients[4])
            if truth.seconds.has_load
            else truth.slowdown_per_running * seconds.per_token
        )
        shared = (
            truth.joules.all_coefficients[4]
            if truth.joules.has_load
            else truth.shared_fraction * truth.joules.all_coefficients[2]
        )
        self.shared_joules = min(max(0.0, energy_factor * shared), joules.per_token)
        self.own_joules = joules.per_token - self.shared_joules

    def count_new_microjoules(self) -> int:
        """Round what was spent so far; the microjoules by which that grew."""
        total = round((self.prefill_joules + self.decode_joules) * _MICRO)
        grown = total - self.microjoules
        self.microjoules = total
        return grown

    def build_cost(self, now: float, *, aborted: bool = False) -> RequestCost:
        first = (
            self.first_token_at - self.submitted_at if self.tokens_left < self.tokens_out else 0.0
        )
        return RequestCost(
            request_id=self.request_id,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out - self.tokens_left,
            prefill_joules=self.prefill_joules,
            decode_joules=self.decode_joules,
            microjoules=self.microjoules,
            queue_seconds=self.admitted_at - self.submitted_at,
            seconds=now - self.submitted_at,
            first_token_seconds=first,
            aborted=aborted,
        )


class BatchingEngine:
    """A GPU that serves one model; deterministic for a seed and an order of calls."""

    def __init__(self, truth: CostModel, seed: int = 0) -> None:
        self.truth = truth
        self.seconds = 0.0
        """The engine's own clock: simulated seconds stepped and idled."""
        self.microjoules = 0
        """The energy counter: everything spent since the start, idling included."""
        self.idle_microjoules = 0
        self._idle_joules = 0.0
        self._rng = Random(seed)  # noqa: S311 - a reproducible model, not a secret
        self._waiting: dict[str, _EngineRequest] = {}
        self._prefilling: dict[str, _EngineRequest] = {}
        self._prefill_steps: deque[float] = deque()
        self._decoding: dict[str, _EngineRequest] = {}
        self._decode_next = False
        self._kv_used = 0

    @property
    def running_requests(self) -> int:
        """Requests that were admitted and have not ended."""
        return len(self._prefilling) + len(self._decoding)

    @property
    def waiting_requests(self) -> int:
        """Requests that were submitted and not admitted yet."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache in use, 0 to 1."""
        return min(1.0, self._kv_used / self.truth.kv_capacity)

    def set_cost_model(self, truth: CostModel) -> None:
        """Replace the model's costs; requests already admitted end at their old ones."""
        self.truth = truth

    def submit_request(self, request_id: str, tokens_in: int, tokens_out: int) -> None:
        """Queue a request; raises ValueError for a known id or a token count below 1."""
        if request_id in self._waiting or self._find_request(request_id) is not None:
            raise ValueError(f"request {request_id!r} is in the engine already")
        if tokens_in < 1 or tokens_out < 1:
            raise ValueError("a request has at least one prompt token and one new token")
        self._waiting[request_id] = _EngineRequest(request_id, tokens_in, tokens_out, self.seconds)

    def abort_request(self, request_id: str) -> RequestCost | None:
        """Drop a request; what it cost so far, or None if the engine does not have it."""
        request = self._waiting.pop(request_id, None)
        if request is None:
            request = self._find_request(request_id)
            if request is None:
                return None
            self._release_request(request)
        else:
            request.admitted_at = self.seconds
        return request.build_cost(self.seconds, aborted=True)

    def advance_idle(self, seconds: float) -> None:
        """Let time pass without work; raises ValueError if that is not a time."""
        if not (isfinite(seconds) and seconds >= 0.0):
            raise ValueError(f"idle time is {seconds}")
        self.seconds += seconds
        self._idle_joules += self.truth.idle_watts * seconds
        total = round(self._idle_joules * _MICRO)
        self.microjoules += total - self.idle_microjoules
        self.idle_microjoules = total

    def run_step(self) -> EngineStep | None:
        """Advance by one forward pass; None if there is nothing to do."""
        if not self._prefilling and self._waiting:
            self._admit_requests()
        if self._prefilling and not (self._decode_next and self._decoding):
            self._decode_next = True
            return self._run_prefill()
        self._decode_next = False
        return self._run_decode() if self._decoding else None

    def _admit_requests(self) -> None:
        """Move waiting requests into one prefill group, in order, as far as they fit.

        A request is admitted only if its whole context fits the KV cache, so nothing is ever
        pre-empted; one that is larger than the cache still runs, alone.
        """
        truth = self.truth
        budget = MAX_BATCHED_TOKENS
        reserved = sum(r.tokens_in + r.tokens_out for r in self._decoding.values())
        while self._waiting and self.running_requests < truth.max_num_seqs:
            request = next(iter(self._waiting.values()))
            needed = request.tokens_in + request.tokens_out
            if self._prefilling and request.tokens_in > budget:
                break
            if self.running_requests and reserved + needed > truth.kv_capacity:
                break
            del self._waiting[request.request_id]
            request.admitted_at = self.seconds
            request.fix_costs(truth, self._rng)
            self._prefilling[request.request_id] = request
            self._kv_used += request.tokens_in
            budget -= request.tokens_in
            reserved += needed
        if self._prefilling:
            self._plan_prefill()

    def _plan_prefill(self) -> None:
        """Cut the group's prefill into equal steps that are not too long."""
        longest = max(r.prefill_seconds for r in self._prefilling.values())
        if not self.truth.seconds.has_load:
            longest *= 1.0 + self.truth.slowdown_per_running * (len(self._prefilling) - 1)
        count = ceil(longest / MAX_PREFILL_STEP_SECONDS)
        self._prefill_steps = deque([longest / count] * count)

    def _run_prefill(self) -> EngineStep:
        duration = self._prefill_steps.popleft()
        self.seconds += duration
        share = 1.0 / (len(self._prefill_steps) + 1)  # of what each has still to spend
        joules, counted = 0.0, 0
        for request in self._prefilling.values():
            spent = share * (request.prefill_total - request.prefill_joules)
            request.prefill_joules += spent
            joules += spent
            counted += request.count_new_microjoules()
        self.microjoules += counted
        if not self._prefill_steps:
            self._decoding.update(self._prefilling)
            self._prefilling.clear()
        return EngineStep(duration, joules, counted, [], [])

    def _run_decode(self) -> EngineStep:
        batch = list(self._decoding.values())
        count = len(batch)
        duration = max(r.step_seconds + (count - 1) * r.load_seconds for r in batch)
        self.seconds += duration
        self._kv_used += count
        tokens: list[tuple[str, int]] = []
        finished: list[RequestCost] = []
        joules, counted = 0.0, 0
        for request in batch:
            spent = request.own_joules + request.shared_joules / count
            request.decode_joules += spent
            joules += spent
            counted += request.count_new_microjoules()
            if request.tokens_left == request.tokens_out:
                request.first_token_at = self.seconds
            request.tokens_left -= 1
            tokens.append((request.request_id, 1))
            if not request.tokens_left:
                self._release_request(request)
                finished.append(request.build_cost(self.seconds))
        self.microjoules += counted
        return EngineStep(duration, joules, counted, tokens, finished)

    def _find_request(self, request_id: str) -> _EngineRequest | None:
        return self._decoding.get(request_id) or self._prefilling.get(request_id)

    def _release_request(self, request: _EngineRequest) -> None:
        """Free an admitted request's place and its part of the KV cache."""
        self._decoding.pop(request.request_id, None)
        if self._prefilling.pop(request.request_id, None) and not self._prefilling:
            self._prefill_steps.clear()
        self._kv_used -= request.tokens_in + request.tokens_out - request.tokens_left
