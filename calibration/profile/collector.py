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

from calibration.endpoint.retry import CollectError, Patience, Trouble
from calibration.endpoint.stream import Reply
from calibration.profile.energy import MeterError
from calibration.profile.load import Gauges
from calibration.profile.measurement_job import Job
from calibration.profile.rows_file import Log, Observation
from calibration.profile.workload import Cell, Visit
from calibration.tables.prompts import CHAT_OVERHEAD_TOKENS, Maker
from gateway.tokens import Counter

_WARM_UPS: Final = 2
# What the gateway adds to a chat of one message (its own rule, `gateway.service.request.body`).


class Collector:
    """Measures one job; `on_progress(visit, requests so far)` is called after each request."""

    def __init__(
        self,
        job: Job,
        log: Log,
        counter: Counter,
        on_progress: Callable[[Visit, int], None],
        *,
        retry_seconds: float = 0.5,
    ) -> None:
        self.trouble = Trouble()
        self.job = job
        self._log = log
        self._counter = counter
        self._on_progress = on_progress
        self._patience = Patience(job.target, self.trouble, retry_seconds)
        self._gauges = Gauges(job.target.load)
        self._ratio = 1.0  # the server's tokens per tiktoken token, where it does not tokenise
        self._maker = Maker(job.target.count if job.info.tokenizes else self._estimate, job.seed)
        self._generated = 0

    async def run(self) -> None:
        """Measure what is left, in order. Raises CollectError."""
        left = [visit for visit in self.job.visits if self.job.wants(visit)]
        try:
            if left:
                await self._warm_up()
            for visit in left:
                if visit.cell.of_prompts:
                    await self._visit_prompts(visit)
                elif visit.cell.concurrency > 1:
                    await self._visit_busy(visit)
                else:
                    await self._visit_alone(visit)
        except MeterError as error:
            raise CollectError(str(error)) from error
        finally:
            await self._gauges.close()

    async def _estimate(self, text: str) -> int:
        return round(self._counter.count(text) * self._ratio)

    async def _warm_up(self) -> None:
        """Have the server compile and allocate; learn how it counts."""
        for number in range(_WARM_UPS):
            prompt = self._maker.rough(32, f"warm-up {number}")
            asked = _exactly(prompt, 16)
            reply = await self._patience.insist(partial(self._send, "/v1/completions", asked))
            if reply is None:
                words = "; ".join(self.trouble.refusals) or "it does not answer"
                raise CollectError(f"{self.job.target.name}: the warm-up failed: {words}")
            self._ratio = reply.tokens_in / max(1, self._counter.count(prompt))

    async def _visit_alone(self, visit: Visit) -> None:
        cell, tally = visit.cell, self.job.tally(visit.cell)
        while tally.wants_more(visit.block, self.job.rule):
            repeat = tally.next_repeat(visit.block)
            prompt = await self._prompt(cell, f"{visit.block}:{repeat}")
            if not await self._grid_request(visit, repeat, prompt):
                return  # the cell goes on in its next block, or when the run is resumed

    async def _visit_busy(self, visit: Visit) -> None:
        cell = visit.cell
        prompts = {
            repeat: await self._prompt(cell, f"0:{repeat}") for repeat in self.job.missing(visit)
        }
        queue = collections.deque(prompts)
        left = len(prompts)
        slots: list[asyncio.Task[None]] = []

        async def fill(name: str, tokens_out: int) -> bool:
            prompt = self._maker.rough(cell.tokens_in, f"{self.job.target.name}:{cell.name}:{name}")
            asked = _exactly(prompt, tokens_out)
            done = await self._patience.once(partial(self._send, "/v1/completions", asked))
            return done is not None

        async def slot(number: int) -> None:
            nonlocal left
            await fill(f"lead {number}", max(1, cell.tokens_out * (number + 1) // cell.concurrency))
            while queue:
                repeat = queue.popleft()
                await self._grid_request(visit, repeat, prompts[repeat])
                left -= 1
            turn = 0
            while left and await fill(f"tail {number} {turn}", cell.tokens_out):
                turn += 1
            if not left:
                for other in slots:
                    if other is not asyncio.current_task():
                        other.cancel()

        await _together([slot(number) for number in range(cell.concurrency)], slots)

    async def _visit_prompts(self, visit: Visit) -> None:
        queue = collections.deque(self.job.missing(visit))

        async def slot() -> None:
            while queue:
                repeat = queue.popleft()
                await self._prompt_request(visit, repeat)

        await _together([slot() for _ in range(visit.cell.concurrency)], [])

    async def _prompt(self, cell: Cell, key: str) -> str:
        """Make a prompt; where the server does not count just now, one of about the length."""
        name = f"{self.job.target.name}:{cell.name}:{key}"
        prompt = await self._patience.once(lambda: self._maker.exact(cell.tokens_in, name))
        return self._maker.rough(cell.tokens_in, name) if prompt is None else prompt

    async def _grid_request(self, visit: Visit, repeat: int, prompt: str) -> bool:
        asked = _exactly(prompt, visit.cell.tokens_out)
        counted = self._counter.count(prompt)
        return await self._measure(visit, repeat, "/v1/completions", asked, counted)

    async def _prompt_request(self, visit: Visit, repeat: int) -> bool:
        job, prompt = self.job, self.job.prompts[repeat]
        counted = self._counter.count(prompt)
        room = job.max_tokens
        if job.info.context_tokens is not None:
            expected = round(counted * max(1.0, self._ratio) * 1.1) + 2 * CHAT_OVERHEAD_TOKENS
            room = max(1, min(room, job.info.context_tokens - expected))
        asked: dict[str, Any] = {"max_tokens": room}
        if job.api == "completions":
            return await self._measure(
                visit, repeat, "/v1/completions", asked | {"prompt": prompt}, counted
            )
        asked["messages"] = [{"role": "user", "content": prompt}]
        counted += CHAT_OVERHEAD_TOKENS
        return await self._measure(visit, repeat, "/v1/chat/completions", asked, counted)

    async def _measure(
        self, visit: Visit, repeat: int, path: str, asked: dict[str, Any], tiktoken_in: int
    ) -> bool:
        """Send one request until it is answered and append its row; False if given up."""
        job, cell = self.job, visit.cell
        row = await self._patience.insist(
            lambda: self._row(visit, repeat, path, asked, tiktoken_in)
        )
        if row is None:
            self.trouble.given_up += 1
            return False
        self._log.append(row)
        tally = job.tally(cell)
        tally.add(row.block, row.repeat, row.seconds, row.joules)
        self._on_progress(visit, len(tally.repeats[visit.block]))
        return True

    async def _row(
        self, visit: Visit, repeat: int, path: str, asked: dict[str, Any], tiktoken_in: int
    ) -> Observation:
        job, cell = self.job, visit.cell
        if cell.concurrency > 1:
            self._gauges.refresh_soon()
        else:
            await self._gauges.refresh()
        window = await job.meter.begin_window(alone=cell.concurrency == 1)
        running, waiting = self._gauges.others()
        before = self._generated
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        reply = await self._send(path, asked, counting=cell.concurrency > 1)
        share = reply.tokens_out / max(reply.tokens_out, self._generated - before)
        measured = await job.meter.end_window(window, reply, share)
        return Observation(
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

    async def _send(self, path: str, asked: dict[str, Any], *, counting: bool = True) -> Reply:
        with self._gauges.one_more():
            return await self.job.target.ask(path, asked, self._count, counting=counting)

    def _count(self, tokens: int) -> None:
        self._generated += tokens


def _exactly(prompt: str, tokens_out: int) -> dict[str, Any]:
    """A completion of exactly so many new tokens."""
    return {
        "prompt": prompt,
        "max_tokens": tokens_out,
        "min_tokens": tokens_out,
        "ignore_eos": True,
    }


async def _together(
    jobs: Iterable[Coroutine[Any, Any, None]], tasks: list[asyncio.Task[None]]
) -> None:
    """Run all to their end; the first error of ours ends the others and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(job) for job in jobs)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
