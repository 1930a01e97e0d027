"""Continuous batching in discrete steps, with the time and energy of each.

PURE: this file knows no clock, socket or event loop. Whoever drives it calls `run_step()` while
there is work and `advance_idle()` for the time in between, and decides how long a simulated second
lasts.

Rules:
- A step is one forward pass: each decoding request gets a token, and with the tokens that are left
  of the budget prompts are computed in order of arrival, long ones in chunks. The last chunk of a
  prompt yields its first token. Waiting requests are admitted while there is budget.
- A step costs what step_model.py says: a fixed part, and the own parts of those in it. Each request
  carries its own parts and an equal share of the fixed part. That is its truth; no rule of the
  meter's is in it.
- A request alone takes exactly T(i, o) seconds and E(i, o) joules of its truth's forms. Their
  intercept is a fixed part of the step in which a prompt begins: company shares it.
- The counter is an integer of microjoules. The running total of those in flight is rounded, and a
  request that ends takes what the rounded total is less by without it: requests + idle = counter,
  exactly, and each request is within a microjoule of its real number.
"""

from dataclasses import dataclass
from math import isfinite
from random import Random

from backends.simulator.cost_model import CostModel
from backends.simulator.decode_batch import DecodeBatch
from backends.simulator.engine_request import EngineRequest, RequestCost
from backends.simulator.step_sums import Chunks, sum_fixed_joules, sum_seconds

_MICRO = 1e6
_LEAST_SECONDS = 1e-9  # of a step, so that time goes on


@dataclass(frozen=True, slots=True)
class EngineStep:
    """One forward pass: how long, how much, who got tokens and who is done."""

    duration_seconds: float
    joules: float
    microjoules: int
    """What the counter advanced by."""
    tokens: list[tuple[str, int]]
    finished: list[RequestCost]
    started: list[str]
    """Those whose first token this was."""


class BatchingEngine:
    """A GPU that serves one model; deterministic for a seed and an order of calls."""

    def __init__(self, truth: CostModel, seed: int = 0) -> None:
        self.truth = truth
        self.seconds = 0.0
        """The engine's own clock: simulated seconds stepped and idled."""
        self.microjoules = 0
        """The energy counter: everything spent since the start, idling included."""
        self.idle_microjoules = 0
        self.preemptions = 0
        self._idle_joules = 0.0
        self._rng = Random(seed)  # noqa: S311 - a reproducible model, not a secret
        self._waiting: dict[str, EngineRequest] = {}
        self._prefilling: dict[str, EngineRequest] = {}
        self._batch = DecodeBatch()
        self._spent_joules = 0.0
        """By requests that have not ended."""
        self._spent_microjoules = 0
        self._kv_used = 0
        self._kv_reserved = 0

    @property
    def running_requests(self) -> int:
        """Requests that were admitted and have not ended."""
        return len(self._prefilling) + len(self._batch)

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

    def submit_request(
        self,
        request_id: str,
        tokens_in: int,
        tokens_out: int,
        cached_tokens: int = 0,
        at_seconds: float | None = None,
    ) -> None:
        """Queue a request, so much of its prompt found in the prefix cache.

        `at_seconds` is when it came, where that was during the last step. Raises ValueError for a
        known id or token counts that cannot be.
        """
        if request_id in self._waiting or self._find_request(request_id) is not None:
            raise ValueError(f"request {request_id!r} is in the engine already")
        if tokens_in < 1 or tokens_out < 1:
            raise ValueError("a request has at least one prompt token and one new token")
        if not 0 <= cached_tokens < tokens_in:
            raise ValueError("at least the last prompt token is computed")
        came = self.seconds if at_seconds is None else at_seconds
        self._waiting[request_id] = EngineRequest(
            request_id, tokens_in, tokens_out, cached_tokens, came
        )

    def tokens_of(self, request_id: str) -> int:
        """New tokens that a request has, the step under way included; 0 for one not here."""
        request = self._batch.members.get(request_id)
        return 0 if request is None else self._batch.tokens_of(request)

    def abort_request(self, request_id: str) -> RequestCost | None:
        """Drop a request; what it cost so far, or None if the engine does not have it."""
        request = self._waiting.pop(request_id, None)
        if request is None:
            request = self._find_request(request_id)
            if request is None:
                return None
            self._release_request(request)
        self._settle(request)
        return request.end(self.seconds, aborted=True)

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
        if self.truth.preempts:
            self._preempt()
        chunks = self._chunks() if self._prefilling or self._waiting else []
        if not chunks and not self._batch.members:
            return None
        return self._forward(chunks)

    def _chunks(self) -> Chunks:
        """Choose the prompt tokens of this step, admitting who fits."""
        budget = self.truth.max_batched_tokens - len(self._batch)
        chunks: Chunks = []
        for request in self._prefilling.values():
            if budget <= 0:
                return chunks
            count = min(request.prompt_tokens - request.prompt_done, request.most_chunk, budget)
            chunks.append((request, count))
            budget -= count
        while self._waiting and budget > 0 and self.running_requests < self.truth.max_num_seqs:
            request = next(iter(self._waiting.values()))
            if not self._fits(request):
                break
            self._admit_requests(request)
            count = min(request.prompt_tokens - request.prompt_done, request.most_chunk, budget)
            chunks.append((request, count))
            budget -= count
        return chunks

    def _fits(self, request: EngineRequest) -> bool:
        """Whether the KV cache has room; one that is larger than the cache still runs, alone.

        Without preemption the whole context is reserved, so that nobody is ever thrown out.
        """
        if not self.running_requests:
            return True
        if self.truth.preempts:
            return (
                self._kv_used + request.prompt_tokens + self.running_requests
                <= self.truth.kv_capacity
            )
        return self._kv_reserved + _whole(request) <= self.truth.kv_capacity

    def _admit_requests(self, request: EngineRequest) -> None:
        del self._waiting[request.request_id]
        if request.admitted_at < 0.0:  # else it was thrown out and comes back
            request.admitted_at = self.seconds
            request.price(self.truth, self._rng)
        request.context = request.prompt_done
        self._prefilling[request.request_id] = request
        self._kv_used += request.context
        self._kv_reserved += _whole(request)

    def _preempt(self) -> None:
        """Throw the youngest out while the next step's tokens have no room."""
        while (
            self.running_requests > 1 and self._kv_used + len(self._batch) > self.truth.kv_capacity
        ):
            request = next(reversed((self._prefilling or self._batch.members).values()))
            self._release_request(request)
            request.throw_out()
            self.preemptions += 1
            self._waiting = {request.request_id: request, **self._waiting}

    def _forward(self, chunks: Chunks) -> EngineStep:
        """Spend a step's time and energy, and hand out its tokens."""
        batch = self._batch
        first = [r for r, count in chunks if r.prompt_done + count == r.prompt_tokens]
        share, share_of_token = sum_fixed_joules(batch, chunks, first)
        drafts = 1 + self.truth.draft_tokens
        duration = max(sum_seconds(batch, chunks, first, drafts), _LEAST_SECONDS)
        self.seconds += duration
        joules = (share + share_of_token) * len(batch)
        joules += batch.joules.own * drafts + batch.joules.context
        for request, count in chunks:
            joules += self._compute(request, count, share, share_of_token)
        batch.advance(share + share_of_token, drafts)
        self._kv_used += len(batch)
        self._spent_joules += joules
        spent = round(self._spent_joules * _MICRO)
        counted, self._spent_microjoules = spent - self._spent_microjoules, spent
        self.microjoules += counted
        tokens, finished = self._hand_out(first)
        started = [r.request_id for r in first if r.left == r.tokens_out - 1]
        return EngineStep(duration, joules, counted, tokens, finished, started)

    def _compute(
        self, request: EngineRequest, count: int, share: float, share_of_token: float
    ) -> float:
        """Compute so many tokens of a prompt; its joules."""
        price = request.joules
        spent = share + price.per_prompt_token * count
        if request.prompt_done + count == request.prompt_tokens:
            spent += share_of_token + price.per_sequence
            spent += price.per_context_token * (request.context + count + 0.5)
        else:
            spent += price.per_chunk_context_token * request.context
        request.prompt_done += count
        request.context += count
        request.prefill_joules += spent
        self._kv_used += count
        return spent

    def _hand_out(
        self, first: list[EngineRequest]
    ) -> tuple[list[tuple[str, int]], list[RequestCost]]:
        """Give everyone their tokens; those that have all of them leave."""
        batch = self._batch
        tokens = batch.tokens
        if self.truth.draft_tokens:
            tokens = [
                (name, 1 + batch.accept(request, self._accepted(self.truth.draft_tokens)))
                for name, request in batch.members.items()
            ]
            self._kv_used += sum(count - 1 for _, count in tokens)
        ended = batch.pop_ended()
        if first:
            tokens = [*tokens, *((request.request_id, 1) for request in first)]
        for request in first:
            if request.left == request.tokens_out:
                request.first_token_at = self.seconds
            del self._prefilling[request.request_id]
            request.left -= 1
            request.context += 1
            self._kv_used += 1
            batch.join(request)
            if not request.left:
                ended.append(request)
        finished = []
        for request in ended:
            self._release_request(request)
            self._settle(request)
            finished.append(request.end(self.seconds))
        return tokens, finished

    def _settle(self, request: EngineRequest) -> None:
        """Fix a request's microjoules: by what the counter has less of without it."""
        self._spent_joules -= request.spent_joules
        if not self.running_requests and not any(r.preemptions for r in self._waiting.values()):
            self._spent_joules = 0.0
        rest = round(self._spent_joules * _MICRO)
        request.microjoules, self._spent_microjoules = self._spent_microjoules - rest, rest

    def _accepted(self, drafted: int) -> int:
        """How many drafted tokens are right, one after the other."""
        count = 0
        while count < drafted and self._rng.random() < self.truth.acceptance:
            count += 1
        return count

    def _find_request(self, request_id: str) -> EngineRequest | None:
        return self._batch.members.get(request_id) or self._prefilling.get(request_id)

    def _release_request(self, request: EngineRequest) -> None:
        """Free an admitted request's place and its part of the KV cache."""
        if request.request_id in self._batch.members:
            self._batch.leave(request)
        else:
            del self._prefilling[request.request_id]
        self._kv_used -= request.context
        self._kv_reserved -= _whole(request)


def _whole(request: EngineRequest) -> int:
    return request.tokens_in + request.tokens_out
