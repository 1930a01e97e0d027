"""One request, top to bottom: decode -> plan -> dispatch -> relay -> record."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from backends.errors import BackendError, Oversized
from backends.periodic import rounds
from backends.registry import Backend, Deployment
from gateway.service.accounting.accounting import Books
from gateway.service.accounting.outcome import (
    answer_head,
    estimate_joules,
    name_last_attempt,
    note_opened,
    note_usage,
)
from gateway.service.client import headers as names
from gateway.service.client.cancellation import SWEEP_SECONDS, Cut, Lifeline, Lifelines
from gateway.service.client.errors import ApiError, Draining, GatewayTimeout, Interrupted
from gateway.service.client.response import SSE, Header, Reply
from gateway.service.request.body import Ask, Kind, Members, read
from gateway.service.request.deciding import Deciding
from gateway.service.request.plan import Plan, nobody, plan
from gateway.service.request.profiles import Profiles
from gateway.service.request.routing_table import Names
from gateway.service.upstream.dispatcher import Dispatcher, Opened
from gateway.service.upstream.relay import Explain, explained, renaming
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import Record
from gateway.tokens import Counter

_log = logging.getLogger("joulegate")

CLIENT_GONE = 499
"""nginx's code for a client that closed first; no client ever sees it."""
_OK = 200
_KINDS = {kind.value: kind for kind in Kind}


class Gateway:
    """Everything that serving a request needs; one per process."""

    def __init__(
        self,
        *,
        names: Names,
        profiles: Profiles,
        deployments: tuple[Deployment, ...],
        counter: Counter,
        dispatcher: Dispatcher,
        metrics: Metrics,
        books: Books,
        stall_seconds: float,
        deciding: Deciding | None = None,
    ) -> None:
        self.deciding = deciding or Deciding()
        self.names = names
        self.profiles = profiles
        self.deployments = deployments
        self.metrics = metrics
        self.books = books
        self.draining = False
        self._lifelines = Lifelines()
        self._counter = counter
        self._dispatcher = dispatcher
        self._stall_seconds = stall_seconds

    @property
    def backends(self) -> list[Backend]:
        """Every backend of every deployment."""
        return [backend for deployment in self.deployments for backend in deployment.backends]

    @property
    def inflight(self) -> int:
        """Requests being served now."""
        return self._dispatcher.budget.inflight

    def cut_all(self) -> None:
        """End what still runs, at the drain deadline."""
        self._lifelines.cut_all(Cut.DRAINING)

    async def tick(self) -> None:
        """Keep the deadlines, and the books of what has finished, until cancelled."""
        try:
            await rounds(self._turn, SWEEP_SECONDS, "keeping deadlines and books")
        finally:
            self.books.settle()

    def _turn(self) -> None:
        self._lifelines.sweep()
        running = [sum(backend.load) for backend in self.backends]
        self.deciding.load.add(running, time.monotonic())
        self.books.settle()

    def plan(self, ask: Ask, headers: Mapping[bytes, bytes]) -> Plan:
        """Decide without sending. Raises BadRequest or UnknownModel."""
        target = self.names.resolve(ask.model)
        return plan(ask, target, headers, self.profiles.live, self._counter, self.deciding)

    async def answer(
        self,
        record: Record,
        load: Callable[[], Awaitable[Members]],
        headers: Mapping[bytes, bytes],
        reply: Reply,
        lifeline: Lifeline,
    ) -> None:
        """Serve one inference request and record what became of it; errors go to the client.

        `load` reads and decodes the body: awaited in here, so that a bad body is recorded as any
        other refusal is.
        """
        started = time.perf_counter()
        self._dispatcher.budget.inflight += 1
        self._lifelines.add(lifeline)
        try:
            error = await self._attempt(record, load, headers, reply, lifeline, started)
            if error is not None:
                await self._tell(record, reply, lifeline, error)
        finally:
            self._dispatcher.budget.inflight -= 1
            self._lifelines.discard(lifeline)
            record.seconds = time.perf_counter() - started
            self.books.add(record)

    async def _attempt(
        self,
        record: Record,
        load: Callable[[], Awaitable[Members]],
        headers: Mapping[bytes, bytes],
        reply: Reply,
        lifeline: Lifeline,
        started: float,
    ) -> ApiError | None:
        """Serve a request; return what its client is still to be told, if anything."""
        try:
            await self._serve(record, load, headers, reply, lifeline, started)
        except ApiError as error:
            return error
        except asyncio.CancelledError:
            cut = lifeline.absorb()
            if cut is None:
                raise
            return self._cut_off(record, reply, cut)
        except Exception:  # noqa: BLE001 - a bug must cost one request, not the connection's task
            _log.exception("request %s: a bug", record.id)
            return ApiError("internal error")
        return None

    async def _serve(
        self,
        record: Record,
        load: Callable[[], Awaitable[Members]],
        headers: Mapping[bytes, bytes],
        reply: Reply,
        lifeline: Lifeline,
        started: float,
    ) -> None:
        ask = read(_KINDS[record.kind], await load())
        record.stream, record.single = ask.stream, ask.single
        target = self.names.resolve(ask.model)
        record.requested, record.preset = target.label, target.preset
        made = plan(ask, target, headers, self.profiles.live, self._counter, self.deciding)
        record.lesson = made.lesson
        record.decision = made.decision
        record.decision_seconds = made.seconds
        record.counted_tokens = made.features.tokens_in
        record.asked_tokens = made.features.asked_tokens_out
        if not made.decision.candidates:
            raise nobody(made.decision, ask.kind.prompt)
        opened = await self._dispatcher.open(
            ask, made.decision.candidates, made.snapshot, made.picks, record, lifeline
        )
        try:
            note_opened(record, opened, made.snapshot)
            head = answer_head(record, opened, made)
            explain = partial(made.explain_answer, record) if made.wishes.explain else None
            if opened.stream is None:
                await _send_whole(record, opened, reply, head, explain)
                record.code = _OK
            else:
                record.ttft_seconds = time.perf_counter() - started
                lifeline.expect(self._stall_seconds, Cut.STALLED)
                await reply.start(_OK, [*SSE, *head])
                await opened.stream.relay(reply, lifeline, explain)
                record.code = _OK
                opened.backend.succeeded()
                await opened.stream.finish()
        except BackendError as error:
            if not isinstance(error, Oversized):
                opened.backend.failed(f"{error.reason}: {error}")
            self._note_broken(record, error.reason, str(error))
            raise Interrupted(f"{record.model} broke off: {error}") from error
        except asyncio.CancelledError:
            if lifeline.reason is Cut.STALLED and not reply.blocked:
                opened.backend.failed("stalled within a stream")
            raise
        finally:
            try:
                if opened.stream is not None:
                    note_usage(record, opened.stream.usage)
                    # What comes after the last chunk is the client's time, or the connection's.
                    opened.ended = max(opened.ended, lifeline.last)
                record.serving_seconds = opened.ended - opened.began
                estimate_joules(record, opened, made.snapshot)
            finally:
                self._dispatcher.close(opened)

    async def _tell(
        self, record: Record, reply: Reply, lifeline: Lifeline, error: ApiError
    ) -> None:
        """Tell the client of an error, as an answer or as a stream's last frame, if it reads."""
        record.code = error.status
        record.error = error.message
        name_last_attempt(record)
        attempts = (names.ATTEMPTS.encode(), str(len(record.attempts)).encode())
        lifeline.revive()
        lifeline.expect(self._stall_seconds, Cut.STALLED)
        try:
            await reply.error(error, [attempts])
        except asyncio.CancelledError:
            if lifeline.absorb() is None:
                raise
            self._note_gone(record, reply)

    def _cut_off(self, record: Record, reply: Reply, cut: Cut) -> ApiError | None:
        """Note a request that something outside it ended; return what its client is to be told."""
        if reply.ended:
            return None
        name_last_attempt(record)
        if cut is Cut.CLIENT_GONE or reply.blocked:
            self._note_gone(record, reply)
            return None
        if reply.status:
            self._note_broken(record, cut.value, "cut off")
        if cut is Cut.DRAINING:
            return Draining("the gateway is shutting down", retry_after_seconds=1)
        return GatewayTimeout(f"{record.model} sent nothing for {self._stall_seconds:g} s")

    def _note_gone(self, record: Record, reply: Reply) -> None:
        """Note that nobody reads any more: the client left, or stopped reading."""
        if reply.ended:
            return
        record.code = CLIENT_GONE
        record.error = "the client stopped reading" if reply.blocked else "the client left"
        self.metrics.disconnects.inc()
        # Closing would wait for what is buffered to be read.
        reply.abort()

    def _note_broken(self, record: Record, reason: str, detail: str) -> None:
        self.metrics.broken_count(record.model, reason).inc()
        _log.warning(
            "request %s: %s at %s broke off, %s: %s",
            record.id, record.model, record.backend, reason, detail,
        )  # fmt: skip


async def _send_whole(
    record: Record, opened: Opened, reply: Reply, head: list[Header], explain: Explain | None
) -> None:
    """Send a unary answer, renamed and explained."""
    body = opened.body
    if opened.whole is not None:
        note_usage(record, opened.whole.usage)
        rename = renaming(opened.whole.model, opened.deployment.model)
        body = body if rename is None else rename(body)
    if explain is not None:
        body = explained(body, explain())
    await reply.whole(_OK, body, head)
