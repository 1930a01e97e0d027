"""Drives an engine at the pace of a clock and wakes those who wait for its tokens.

A virtual clock keeps the pace: after each step the loop sleeps until start + virtual / speed, and
not at all when it is behind, so the total is right even where single sleeps are coarse (uvloop's
are whole milliseconds).
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any
from uuid import uuid4

from backends.simulator.answers import SimulatedCompletion
from backends.simulator.engine import BatchingEngine, EngineStep
from backends.simulator.engine_request import RequestCost
from backends.simulator.metrics import SimulatorMetrics

# Being late by more than this is forgiven: a burst to catch up would be no model of anything.
_MAX_LAG_SECONDS = 1.0


class SimulatedCall:
    """One client's request: one or more choices in the engine, their progress in one place."""

    __slots__ = ("_waiter", "_wants_tokens", "choices_left", "costs", "pending")

    def __init__(self, choices: int, *, wants_tokens: bool) -> None:
        self.choices_left = choices
        self.pending: list[int] = []
        """Index of the choice of each token that came since `wait_for_tokens` was last awaited."""
        self.costs: list[RequestCost] = []
        self._wants_tokens = wants_tokens
        self._waiter: asyncio.Future[None] | None = None

    async def wait_for_tokens(self) -> list[int]:
        """The choices that got tokens since the last time, one entry per token."""
        if not self.pending and self.choices_left:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        pending, self.pending = self.pending, []
        return pending

    async def wait_until_ended(self) -> None:
        """Wait for the last token of the last choice."""
        if self.choices_left:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def wake_waiter(self) -> None:
        """Let the one who waits go on if there is something it wants."""
        waiter = self._waiter
        if waiter is not None and (self._wants_tokens or not self.choices_left):
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


class SchedulerLoop:
    """The one task that steps an engine."""

    def __init__(self, engine: BatchingEngine, metrics: SimulatorMetrics, speed: float) -> None:
        self.engine = engine
        self.metrics = metrics
        self.speed = speed
        self._background: set[asyncio.Task[None]] = set()
        self._jobs: dict[str, tuple[SimulatedCall, int, str]] = {}
        self._prompts: dict[str, int] = {}
        """Prompt tokens of those that have no token yet."""
        self._step: tuple[float, float, int] | None = None
        """When the one under way began and will end, and its microjoules."""
        self._work = asyncio.Event()
        self._idle_since: float | None = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def start_task(self) -> None:
        """Begin; needs a running loop."""
        self._idle_since = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._run_steps())

    def start_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do what no request waits for; it ends with the loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def stop_task(self) -> None:
        """End, and forget what was in flight."""
        for work in self._background:
            work.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def run_call(self, answers: Sequence[SimulatedCompletion]) -> list[RequestCost]:
        """Have the engine do the answers' work for one who waits for the whole; return its cost."""
        call_id = uuid4().hex
        call = self.submit_call(call_id, answers, wants_tokens=False)
        try:
            await call.wait_until_ended()
        finally:
            self.abort_call(call_id, answers)
        return call.costs

    def submit_call(
        self, call_id: str, answers: Sequence[SimulatedCompletion], *, wants_tokens: bool
    ) -> SimulatedCall:
        """Give the answers' work to the engine."""
        self.account_idle()
        call = SimulatedCall(len(answers), wants_tokens=wants_tokens)
        for answer in answers:
            request_id = f"{call_id}-{answer.index}"
            self.engine.submit_request(
                request_id, answer.tokens_in, answer.tokens_out, answer.cached_tokens
            )
            self._jobs[request_id] = (call, answer.index, answer.finish_reason)
            self._prompts[request_id] = answer.tokens_in
        self._idle_since = None
        self._work.set()
        return call

    def abort_call(self, call_id: str, answers: Sequence[SimulatedCompletion]) -> None:
        """Drop what is left of a call at once; nothing happens for what has ended."""
        for answer in answers:
            request_id = f"{call_id}-{answer.index}"
            self._prompts.pop(request_id, None)
            if self._jobs.pop(request_id, None) is not None:
                truth = self.engine.abort_request(request_id)
                if truth is not None:
                    self.metrics.record_end(truth, "abort")

    @property
    def microjoules(self) -> int:
        """The energy counter at this moment: a step is spent evenly over its time."""
        if self._step is None:
            return self.engine.microjoules
        began, ends, microjoules = self._step
        left = (ends - time.monotonic()) / (ends - began)
        return self.engine.microjoules - round(microjoules * min(max(left, 0.0), 1.0))

    def account_idle(self) -> None:
        """Bring the engine's clock and its idle energy up to now."""
        if self._idle_since is not None:
            now = time.monotonic()
            self.engine.advance_idle((now - self._idle_since) * self.speed)
            self._idle_since = now

    async def _run_steps(self) -> None:
        engine, speed = self.engine, self.speed
        while True:
            await self._work.wait()
            self._work.clear()
            self.account_idle()
            self._idle_since = None
            start = time.monotonic() - engine.seconds / speed
            while (step := engine.run_step()) is not None:
                behind = time.monotonic() - start - engine.seconds / speed
                # sleep(0) still lets every stream write before the next step
                if behind < 0.0:
                    now = time.monotonic()
                    self._step = (now, now - behind, step.microjoules)
                await asyncio.sleep(max(0.0, -behind))
                self._step = None
                start += max(0.0, behind - _MAX_LAG_SECONDS)
                self._deliver_step(step)
            self._idle_since = time.monotonic()

    def _deliver_step(self, step: EngineStep) -> None:
        jobs = self._jobs
        woken: dict[int, SimulatedCall] = {}
        for request_id, count in step.tokens:
            self.metrics.prompt_tokens += self._prompts.pop(request_id, 0)
            job = jobs.get(request_id)
            if job is not None:  # else its client has left during the step
                job[0].pending.extend([job[1]] * count)
                woken[id(job[0])] = job[0]
        self.metrics.generation_tokens += sum(count for _, count in step.tokens)
        for truth in step.finished:
            job = jobs.pop(truth.request_id, None)
            if job is not None:
                job[0].choices_left -= 1
                job[0].costs.append(truth)
            # without a job its client left while this very step was on its way
            self.metrics.record_end(truth, job[2] if job is not None else "abort")
        for call in woken.values():
            call.wake_waiter()
