"""Runs the plan of one model against its backend and appends a row for every request.

Under load a cell is measured in a steady state: shorter answers fill the slots first, so that they
come free one after another; every measured request is then sent while all other slots are busy,
and they are kept busy until the last one measured has ended.
"""

import asyncio
import collections
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from calibration.endpoint.retry import CollectError, FailureStats, RetryPolicy
from calibration.endpoint.stream import TimedResponse
from calibration.profile.energy import MeterError
from calibration.profile.load import LoadGauges
from calibration.profile.measurement_job import MeasurementJob
from calibration.profile.rows_file import MeasurementLog, MeasurementRow
from calibration.profile.workload import CellVisit, WorkloadCell
from calibration.tables.prompts import CHAT_OVERHEAD_TOKENS, PromptGenerator
from gateway.tokens import TokenCounter

_WARM_UPS: Final = 2
# What the gateway adds to a chat of one message (its own rule, `gateway.service.request.body`).


class MeasurementCollector:
    """Measures one job; `on_progress(visit, requests so far)` is called after each request."""

    def __init__(
        self,
        job: MeasurementJob,
        log: MeasurementLog,
        counter: TokenCounter,
        on_progress: Callable[[CellVisit, int], None],
        *,
        retry_seconds: float = 0.5,
    ) -> None:
        self.failures = FailureStats()
        self.job = job
        self._log = log
        self._counter = counter
        self._on_progress = on_progress
        self._retry_policy = RetryPolicy(job.target, self.failures, retry_seconds)
        self._gauges = LoadGauges(job.target.fetch_load)
        self._ratio = 1.0  # the server's tokens per tiktoken token, where it does not tokenise
        self._maker = PromptGenerator(
            job.target.count_tokens if job.info.tokenizes else self._estimate_tokens, job.seed
        )
        self._generated = 0

    async def run(self) -> None:
        """Measure what is left, in order. Raises CollectError."""
        left = [visit for visit in self.job.visits if self.job.has_work_left(visit)]
        try:
            if left:
                await self._warm_up()
            for visit in left:
                if visit.cell.of_prompts:
                    await self._measure_prompt_visit(visit)
                elif visit.cell.concurrency > 1:
                    await self._measure_visit_under_load(visit)
                else:
                    await self._measure_visit_alone(visit)
        except MeterError as error:
            raise CollectError(str(error)) from error
        finally:
            await self._gauges.close()

    async def _estimate_tokens(self, text: str) -> int:
        return round(self._counter.count_tokens(text) * self._ratio)

    async def _warm_up(self) -> None:
        """Have the server compile and allocate; learn how it counts."""
        for number in range(_WARM_UPS):
            prompt = self._maker.generate_approximate(32, f"warm-up {number}")
            asked = _build_exact_completion(prompt, 16)
            reply = await self._retry_policy.call(
                partial(self._send_request, "/v1/completions", asked)
            )
            if reply is None:
                words = "; ".join(self.failures.refusals) or "it does not answer"
                raise CollectError(f"{self.job.target.name}: the warm-up failed: {words}")
            self._ratio = reply.tokens_in / max(1, self._counter.count_tokens(prompt))

    async def _measure_visit_alone(self, visit: CellVisit) -> None:
        cell, tally = visit.cell, self.job.get_tally(visit.cell)
        while tally.wants_more(visit.block, self.job.rule):
            repeat = tally.next_repeat(visit.block)
            prompt = await self._make_prompt(cell, f"{visit.block}:{repeat}")
            if not await self._measure_grid_request(visit, repeat, prompt):
                return  # the cell goes on in its next block, or when the run is resumed

    async def _measure_visit_under_load(self, visit: CellVisit) -> None:
        cell = visit.cell
        prompts = {
            repeat: await self._make_prompt(cell, f"0:{repeat}")
            for repeat in self.job.list_missing_repeats(visit)
        }
        queue = collections.deque(prompts)
        left = len(prompts)
        slots: list[asyncio.Task[None]] = []

        async def fill_slot(name: str, tokens_out: int) -> bool:
            prompt = self._maker.generate_approximate(
                cell.tokens_in, f"{self.job.target.name}:{cell.name}:{name}"
            )
            asked = _build_exact_completion(prompt, tokens_out)
            done = await self._retry_policy.call_once(
                partial(self._send_request, "/v1/completions", asked)
            )
            return done is not None

        async def run_slot(number: int) -> None:
            nonlocal left
            await fill_slot(
                f"lead {number}", max(1, cell.tokens_out * (number + 1) // cell.concurrency)
            )
            while queue:
                repeat = queue.popleft()
                await self._measure_grid_request(visit, repeat, prompts[repeat])
                left -= 1
            turn = 0
            while left and await fill_slot(f"tail {number} {turn}", cell.tokens_out):
                turn += 1
            if not left:
                for other in slots:
                    if other is not asyncio.current_task():
                        other.cancel()

        await _run_together([run_slot(number) for number in range(cell.concurrency)], slots)

    async def _measure_prompt_visit(self, visit: CellVisit) -> None:
        queue = collections.deque(self.job.list_missing_repeats(visit))

        async def run_slot() -> None:
            while queue:
                repeat = queue.popleft()
                await self._measure_prompt_request(visit, repeat)

        await _run_together([run_slot() for _ in range(visit.cell.concurrency)], [])

    async def _make_prompt(self, cell: WorkloadCell, key: str) -> str:
        """Make a prompt; where the server does not count just now, one of about the length."""
        name = f"{self.job.target.name}:{cell.name}:{key}"
        prompt = await self._retry_policy.call_once(
            lambda: self._maker.generate_exact(cell.tokens_in, name)
        )
        return self._maker.generate_approximate(cell.tokens_in, name) if prompt is None else prompt

    async def _measure_grid_request(self, visit: CellVisit, repeat: int, prompt: str) -> bool:
        asked = _build_exact_completion(prompt, visit.cell.tokens_out)
        counted = self._counter.count_tokens(prompt)
        return await self._measure_request(visit, repeat, "/v1/completions", asked, counted)

    async def _measure_prompt_request(self, visit: CellVisit, repeat: int) -> bool:
        job, prompt = self.job, self.job.prompts[repeat]
        counted = self._counter.count_tokens(prompt)
        room = job.max_tokens
        if job.info.context_tokens is not None:
            expected = round(counted * max(1.0, self._ratio) * 1.1) + 2 * CHAT_OVERHEAD_TOKENS
            room = max(1, min(room, job.info.context_tokens - expected))
        asked: dict[str, Any] = {"max_tokens": room}
        if job.api == "completions":
            return await self._measure_request(
                visit, repeat, "/v1/completions", asked | {"prompt": prompt}, counted
            )
        asked["messages"] = [{"role": "user", "content": prompt}]
        counted += CHAT_OVERHEAD_TOKENS
        return await self._measure_request(visit, repeat, "/v1/chat/completions", asked, counted)

    async def _measure_request(
        self, visit: CellVisit, repeat: int, path: str, asked: dict[str, Any], tiktoken_in: int
    ) -> bool:
        """Send one request until it is answered and append its row; False if given up."""
        job, cell = self.job, visit.cell
        row = await self._retry_policy.call(
            lambda: self._measure_row(visit, repeat, path, asked, tiktoken_in)
        )
        if row is None:
            self.failures.given_up += 1
            return False
        self._log.append_row(row)
        tally = job.get_tally(cell)
        tally.add_row(row.block, row.repeat, row.seconds, row.joules)
        self._on_progress(visit, len(tally.repeats[visit.block]))
        return True

    async def _measure_row(
        self, visit: CellVisit, repeat: int, path: str, asked: dict[str, Any], tiktoken_in: int
    ) -> MeasurementRow:
        job, cell = self.job, visit.cell
        if cell.concurrency > 1:
            self._gauges.schedule_refresh()
        else:
            await self._gauges.refresh_load()
        window = await job.meter.begin_window(alone=cell.concurrency == 1)
        running, waiting = self._gauges.count_other_requests()
        before = self._generated
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        reply = await self._send_request(path, asked, counting=cell.concurrency > 1)
        share = reply.tokens_out / max(reply.tokens_out, self._generated - before)
        measured = await job.meter.end_window(window, reply, share)
        return MeasurementRow(
            run=job.run,
            cell=cell.name,
            block=visit.block,
            repeat=repeat,
            request_id=reply.request_id,
            model=job.target.name,
            backend=str(job.target.url),
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            cached_tokens=reply.cached_tokens,
            tiktoken_in=tiktoken_in,
            seconds=reply.seconds,
            ttft_seconds=reply.ttft_seconds,
            joules=measured.joules,
            method=measured.method,
            running=running,
            waiting=waiting,
            concurrency=cell.concurrency,
            hardware=job.hardware,
            engine=job.info.engine,
            at=at,
        )

    async def _send_request(
        self, path: str, asked: dict[str, Any], *, counting: bool = True
    ) -> TimedResponse:
        with self._gauges.track_request():
            return await self.job.target.stream_request(
                path, asked, self._count_generated, counting=counting
            )

    def _count_generated(self, tokens: int) -> None:
        self._generated += tokens


def _build_exact_completion(prompt: str, tokens_out: int) -> dict[str, Any]:
    """A completion of exactly so many new tokens."""
    return {
        "prompt": prompt,
        "max_tokens": tokens_out,
        "min_tokens": tokens_out,
        "ignore_eos": True,
    }


async def _run_together(
    jobs: Iterable[Coroutine[Any, Any, None]], tasks: list[asyncio.Task[None]]
) -> None:
    """Run all to their end; the first error of ours ends the others and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(job) for job in jobs)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
