"""Sending one request: backends of the best deployment, then the next-ranked, until one answers.

Rules: nothing has reached the client while this goes on; each further attempt takes from the retry
budget; vLLM's own refusals (400, 404, 422 …) end it at once; a backend is told how it did.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backends.client import Answer, Client
from backends.errors import BackendError, BadAnswer, Oversized, Refused, Silent
from backends.meter.client.request_handle import Metered
from backends.registry import Backend, Deployment
from gateway.config import LimitsConfig, RetryConfig, TimeoutsConfig
from gateway.scheduling.decision import Scored
from gateway.service.client.cancellation import Cut, Lifeline
from gateway.service.client.errors import (
    BadGateway,
    Rejected,
)
from gateway.service.request.body import Ask, encode
from gateway.service.request.routing_table import Picks, Place, Snapshot
from gateway.service.upstream import metering
from gateway.service.upstream.failure_response import RATE_LIMITED, UNAUTHORISED, exhausted
from gateway.service.upstream.prompt_backlog import PromptBacklog
from gateway.service.upstream.relay import Stream, Whole, parse_whole
from gateway.service.upstream.retry_budget import RetryBudget
from gateway.service.upstream.upstream_body import forwarded
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import Attempt, Record, Wasted
from gateway.telemetry.trace_context import Sampler

_SERVER_ERROR = 500
_REDIRECT = 300
_WORKED_FOR_NOTHING = ("abandoned", Silent.reason)
# Begun at random, so that two workers' ids do not meet at one vLLM.
_serial = itertools.count(secrets.randbits(32))


@dataclass(slots=True)
class Opened:
    """An answer that has begun: a stream at its first content, or a whole body.

    `running` is how many the backend was serving already; times are monotonic seconds.
    """

    scored: Scored
    deployment: Deployment
    backend: Backend
    answer: Answer
    stream: Stream | None = None
    body: bytes = b""
    whole: Whole | None = None
    trial: int = 0
    running: int = 0
    began: float = 0.0
    ended: float = 0.0
    metered: Metered | None = None


class Dispatcher:
    """Sends requests to backends for one process."""

    def __init__(
        self,
        client: Client,
        metrics: Metrics,
        timeouts: TimeoutsConfig,
        retry: RetryConfig,
        limits: LimitsConfig,
        sampler: Sampler | None = None,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._timeouts = timeouts
        self._max_attempts = retry.max_attempts
        self._max_answer_bytes = limits.max_answer_bytes
        self._sampler = sampler
        self.budget = RetryBudget(retry.budget_ratio, retry.budget_floor)

    async def open(
        self,
        ask: Ask,
        ranked: Sequence[Scored],
        snapshot: Snapshot,
        picks: Picks,
        record: Record,
        lifeline: Lifeline,
    ) -> Opened:
        """Get an answer begun.

        The backend's in-flight count stays up until `close`. Raises Rejected, Unavailable,
        Overloaded, BadGateway or GatewayTimeout once nobody is left to ask.
        """
        if self._sampler is not None:
            record.trace = self._sampler.begin(record.trace)
        failures: list[BackendError] = []
        took = False
        try:
            for scored, place, backend in self._order(ranked, snapshot, picks):
                if failures:
                    if len(failures) >= self._max_attempts or not (took or self.budget.take()):
                        break
                    took = True
                    failed = record.attempts[-1].model
                    self._metrics.retry_count(failed, failures[-1].reason).inc()
                opened = await self._attempt(
                    ask, scored, place, backend, record, lifeline, failures
                )
                if opened is not None:
                    return opened
        finally:
            if took:
                self.budget.retrying -= 1
        raise exhausted(failures)

    def close(self, opened: Opened) -> None:
        """Give up or give back the connection, and count the request out."""
        try:
            if opened.metered is not None and opened.stream is not None:
                metering.streamed(opened.metered, opened.stream)
        finally:
            opened.answer.close()
            opened.backend.end(trial=opened.trial)

    def _order(
        self, ranked: Sequence[Scored], snapshot: Snapshot, picks: Picks
    ) -> Iterator[tuple[Scored, Place, Backend]]:
        """Yield whom to ask: each usable backend of the best deployment, then of the next."""
        for scored in ranked:
            place = snapshot.by_name[scored.model, scored.deployment]
            tried: list[Backend] = []
            backend = picks.get((scored.model, scored.deployment))
            if backend is None:
                backend = place.deployment.find(scored.backend)
            if backend is None or not backend.usable:
                backend = place.deployment.pick()
            while backend is not None:
                tried.append(backend)
                yield scored, place, backend
                backend = place.deployment.pick(tried)

    async def _attempt(
        self,
        ask: Ask,
        scored: Scored,
        place: Place,
        backend: Backend,
        record: Record,
        lifeline: Lifeline,
        failures: list[BackendError],
    ) -> Opened | None:
        """Ask one backend; None where another should be. Raises Rejected."""
        began = time.monotonic()
        running, _ = backend.load
        trial = backend.begin()
        backlog = PromptBacklog(backend, scored, place.option, stream=ask.stream)
        metered = metering.begin(backend, place, scored)
        opened: Opened | None = None
        reason: str | None = "abandoned"
        try:
            opened = await self._open(ask, scored, place.deployment, backend, record, lifeline)
            opened.trial, opened.running, opened.metered = trial, running, metered
            opened.began, opened.ended = began, time.monotonic()
            reason = None
        except Refused as error:
            reason = error.reason
            _judge(error, backend)
            failures.append(error)
        except Oversized as error:
            # The request's doing: another backend would send as much.
            reason = error.reason
            raise BadGateway(str(error), code="answer_too_large") from None
        except BackendError as error:
            reason = error.reason
            backend.failed(f"{reason}: {error}")
            failures.append(error)
        else:
            # A stream has yet to end before it counts as a success.
            backend.answering() if ask.stream else backend.succeeded()
            if metered is not None and opened.stream is not None:
                metering.answering(metered, record, opened.stream, lifeline)
            elif metered is not None:
                metering.answered(metered, record, opened.whole or Whole(), place.option)
        finally:
            backlog.release()
            record.attempts.append(Attempt(scored.model, backend.label, reason))
            if self._sampler is not None:
                self._sampler.asked(record.trace, began)
            if opened is None:
                backend.end(trial=trial)
                wasted = _wasted(reason, scored, time.monotonic() - began)
                record.wasted += wasted
                if metered is not None:
                    metering.failed(metered, record, wasted)
        return opened

    async def _open(
        self,
        ask: Ask,
        scored: Scored,
        deployment: Deployment,
        backend: Backend,
        record: Record,
        lifeline: Lifeline,
    ) -> Opened:
        seconds = self._timeouts.first_token_seconds if ask.stream else self._timeouts.unary_seconds
        headers = {
            "Content-Type": "application/json",
            # A suffix of our own: vLLM must not meet one id twice, whatever clients send.
            "X-Request-Id": f"{record.id}-{next(_serial):x}",
            **backend.headers,
        }
        if record.trace is not None:
            headers["traceparent"] = record.trace.header
        body = encode(forwarded(ask, deployment.served_name))
        answer: Answer | None = None
        opened: Opened | None = None
        try:
            lifeline.expect(seconds, Cut.SILENT)
            answer = await self._client.post(backend.url(ask.kind.path), body, headers)
            if answer.status >= _REDIRECT:
                await self._refuse(answer)
            begun = Opened(scored, deployment, backend, answer)
            if ask.stream:
                await self._open_stream(ask, begun, deployment)
            else:
                await self._read_whole(begun)
            opened = begun
        except asyncio.CancelledError:
            if lifeline.reason is not Cut.SILENT:
                raise
            lifeline.absorb()
            lifeline.revive()
            raise Silent(f"{backend.label} said nothing useful within {seconds:g} s") from None
        finally:
            lifeline.expect_nothing()
            if opened is None and answer is not None:
                answer.close()
        return opened

    async def _refuse(self, answer: Answer) -> None:
        if answer.status < 400:  # noqa: PLR2004
            raise BadAnswer(f"a redirect ({answer.status}); they are not followed")
        body = await answer.read(self._max_answer_bytes)
        raise Refused(answer.status, body, answer.header("Retry-After"))

    async def _open_stream(self, ask: Ask, opened: Opened, deployment: Deployment) -> None:
        content_type = opened.answer.header("Content-Type") or ""
        if not content_type.startswith("text/event-stream"):
            # A 200 that is no stream: maybe an error in JSON, which parse_whole raises.
            parse_whole(await opened.answer.read(self._max_answer_bytes))
            raise BadAnswer(f"{content_type or 'no content type'} where a stream was asked for")
        opened.stream = Stream(opened.answer, deployment.model, wants_usage=ask.wants_usage)
        await opened.stream.open()

    async def _read_whole(self, opened: Opened) -> None:
        opened.body = await opened.answer.read(self._max_answer_bytes)
        opened.whole = parse_whole(opened.body)


def _judge(error: Refused, backend: Backend) -> None:
    """Tell a backend's failure from a refusal of the request itself, which raises Rejected."""
    if error.status >= _SERVER_ERROR:
        backend.failed(str(error))
    elif error.status not in (RATE_LIMITED, *UNAUTHORISED):
        backend.succeeded()
        raise Rejected(error.status, error.body) from None


def _wasted(reason: str | None, scored: Scored, seconds: float) -> list[Wasted]:
    """Estimate what a failed attempt cost: by the share of its predicted time it was worked on."""
    if reason not in _WORKED_FOR_NOTHING:
        return []
    share = min(1.0, seconds / scored.predicted_seconds)
    return [Wasted(scored.model, scored.predicted_joules * share)]
