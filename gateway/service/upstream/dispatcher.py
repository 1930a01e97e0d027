"""Sending one request: backends of the best deployment, then the next-ranked, until one answers.

Rules: nothing has reached the client while this goes on; each further attempt needs a token of the
retry budget; vLLM's own refusals (400, 404, 422 …) end it at once; each outcome goes to the circuit
breaker of its backend.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from backends.client import BackendClient, BackendResponse
from backends.errors import (
    BackendError,
    BackendStatusError,
    BackendTimeout,
    ConnectionLost,
    InvalidResponse,
    ResponseTooLarge,
    forget_frames,
)
from backends.meter.client.request_handle import MeteredAttempt
from backends.registry import Backend, Deployment
from gateway.config import LimitsConfig, RetryConfig, TimeoutsConfig
from gateway.scheduling.decision import ScoredCandidate
from gateway.service.byte_budget import ByteBudget, HeldBytes
from gateway.service.client.cancellation import CancelReason, RequestCancellation
from gateway.service.client.errors import (
    BadGateway,
    UpstreamRejection,
)
from gateway.service.request.body import encode_members
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.routing_table import (
    RoutedDeployment,
    RoutingSnapshot,
    SelectedBackends,
)
from gateway.service.upstream import metering
from gateway.service.upstream.failure_response import (
    UNAUTHORISED,
    all_attempts_failed_error,
)
from gateway.service.upstream.prompt_backlog import PromptBacklog
from gateway.service.upstream.relay import StreamedResponse, UnaryResponse, parse_unary
from gateway.service.upstream.retry_budget import RetryBudget
from gateway.service.upstream.sent_ids import SentIds
from gateway.service.upstream.upstream_body import build_upstream_members
from gateway.service.upstream.usage_impact import UsageImpact
from gateway.service.upstream.waste import ABANDONED, estimate_waste, guess_unseen_tokens
from gateway.telemetry.boundary_account import (
    BoundaryAccount,
    HostShare,
    begin_host_share,
    end_host_share,
)
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import BackendAttempt
from gateway.telemetry.trace_context import TraceSampler


@dataclass(slots=True)
class UpstreamResponse:
    """An answer that has begun: a stream at its first content, or a whole body.

    `running` is how many the backend was serving already, `mean_running` how many others it served
    meanwhile; times are monotonic seconds.
    """

    scored: ScoredCandidate
    deployment: Deployment
    backend: Backend
    answer: BackendResponse
    stream: StreamedResponse | None = None
    body: bytes = b""
    unary: UnaryResponse | None = None
    half_open_trial: int = 0
    running: int = 0
    mean_running: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    running_seconds: float = 0.0
    """What the backend had run when this began."""
    metered: MeteredAttempt | None = None
    host_share: HostShare | None = None
    impact: UsageImpact | None = None
    held: HeldBytes | None = None

    def measure_load(self) -> None:
        """Note the mean number of other requests that the backend served since this began."""
        now = time.monotonic()
        if now > self.began:
            ran = self.backend.running_seconds() - self.running_seconds
            self.mean_running = max(0.0, ran / (now - self.began) - 1.0)


class UpstreamDispatcher:
    """Sends requests to backends for one process."""

    def __init__(
        self,
        client: BackendClient,
        metrics: GatewayMetrics,
        timeouts: TimeoutsConfig,
        retry: RetryConfig,
        limits: LimitsConfig,
        sampler: TraceSampler | None = None,
        boundary: BoundaryAccount | None = None,
        bytes_in_flight: ByteBudget | None = None,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._timeouts = timeouts
        self._max_attempts = retry.max_attempts
        self._max_answer_bytes = limits.max_answer_bytes
        self._sampler = sampler
        self._boundary = boundary
        self._sent_ids = SentIds()
        self.bytes_in_flight = bytes_in_flight or ByteBudget(limits.max_bytes_in_flight)
        self.budget = RetryBudget(retry.budget_ratio, retry.budget_floor)

    async def open_response(
        self,
        ask: InferenceRequest,
        ranked: Sequence[ScoredCandidate],
        snapshot: RoutingSnapshot,
        picks: SelectedBackends,
        record: RequestRecord,
        lifeline: RequestCancellation,
    ) -> UpstreamResponse:
        """Attempt backends in order until one responds.

        The backend's in-flight count stays up until `close_response`. Raises UpstreamRejection,
        BackendsUnavailable, BackendsRateLimited, BadGateway or GatewayTimeout once no attempt
        is left.
        """
        if self._sampler is not None:
            record.trace = self._sampler.begin_span(record.trace)
        failures: list[BackendError] = []
        took = False
        try:
            for scored, place, backend in self._iterate_backends(ranked, snapshot, picks):
                if failures:
                    if len(failures) >= self._max_attempts or not (
                        took or self.budget.take_token()
                    ):
                        break
                    took = True
                    failed = record.attempts[-1].model
                    self._metrics.retry_count(failed, failures[-1].reason).inc()
                opened = await self._attempt_backend(
                    ask, scored, place, backend, record, lifeline, failures
                )
                if opened is not None:
                    return opened
        finally:
            if took:
                self.budget.retrying -= 1
        raise all_attempts_failed_error(failures)

    def close_response(self, opened: UpstreamResponse) -> None:
        """Close or return the connection, and count the request out."""
        try:
            if opened.metered is not None and opened.stream is not None:
                metering.end_streamed(opened.metered, opened.stream)
        finally:
            opened.answer.close()
            opened.backend.end_request(trial=opened.half_open_trial)
            end_host_share(opened.host_share)
            if opened.held is not None:
                opened.held.release()

    def _iterate_backends(
        self, ranked: Sequence[ScoredCandidate], snapshot: RoutingSnapshot, picks: SelectedBackends
    ) -> Iterator[tuple[ScoredCandidate, RoutedDeployment, Backend]]:
        """Yield the backends to attempt: the best deployment's available ones, then the next's."""
        for scored in ranked:
            place = snapshot.by_name[scored.model, scored.deployment]
            tried: list[Backend] = []
            backend = picks.get((scored.model, scored.deployment))
            if backend is None:
                backend = place.deployment.find(scored.backend)
            if backend is None or not backend.is_available:
                backend = place.deployment.pick_backend()
            while backend is not None:
                tried.append(backend)
                yield scored, place, backend
                backend = place.deployment.pick_backend(tried)

    async def _attempt_backend(
        self,
        ask: InferenceRequest,
        scored: ScoredCandidate,
        place: RoutedDeployment,
        backend: Backend,
        record: RequestRecord,
        lifeline: RequestCancellation,
        failures: list[BackendError],
    ) -> UpstreamResponse | None:
        """Attempt one backend; None where the next is to be attempted. Raises UpstreamRejection."""
        began = time.monotonic()
        running, _ = backend.running_and_queued
        running_seconds = backend.running_seconds()
        trial = backend.begin_request()
        backlog = PromptBacklog(backend, scored, place.option, stream=ask.stream)
        metered = metering.begin_attempt(backend, place, scored)
        share = begin_host_share(self._boundary, record, scored.model, backend.label)
        opened: UpstreamResponse | None = None
        reason: str | None = ABANDONED
        try:
            opened = await self._send_request(
                ask, scored, place.deployment, backend, record, lifeline
            )
            opened.half_open_trial, opened.running, opened.metered = trial, running, metered
            opened.began, opened.ended = began, time.monotonic()
            opened.running_seconds, opened.host_share = running_seconds, share
            opened.measure_load()
            reason = None
        except BackendStatusError as error:
            reason = error.reason
            _classify_refusal(error, backend)
            failures.append(forget_frames(error))
        except ResponseTooLarge as error:
            # The request's doing: another backend would send as much.
            reason = error.reason
            raise BadGateway(str(error), code="answer_too_large") from None
        except BackendError as error:
            reason = error.reason
            backend.record_failure(f"{reason}: {error}")
            failures.append(forget_frames(error))
        else:
            # A stream has yet to end before it counts as a success.
            backend.record_first_content() if ask.stream else backend.record_success()
            if metered is not None and opened.stream is not None:
                metering.note_first_token(metered, record, opened.stream, lifeline)
            elif metered is not None:
                metering.end_unary(metered, record, opened.unary or UnaryResponse(), place.option)
        finally:
            backlog.release()
            record.attempts.append(BackendAttempt(scored.model, backend.label, reason))
            if self._sampler is not None:
                self._sampler.record_attempt(record.trace, began)
            if opened is None:
                backend.end_request(trial=trial)
                end_host_share(share)
                seconds = time.monotonic() - began
                wasted = estimate_waste(reason, scored, seconds)
                record.wasted += wasted
                if metered is not None:
                    guess = guess_unseen_tokens(place.option, scored.tokens_in, running, seconds)
                    metering.end_failed(metered, record, guess if wasted else None)
        return opened

    async def _send_request(
        self,
        ask: InferenceRequest,
        scored: ScoredCandidate,
        deployment: Deployment,
        backend: Backend,
        record: RequestRecord,
        lifeline: RequestCancellation,
    ) -> UpstreamResponse:
        seconds = self._timeouts.first_token_seconds if ask.stream else self._timeouts.unary_seconds
        number = self._sent_ids.number()
        headers = {
            "Content-Type": "application/json",
            "X-Request-Id": self._sent_ids.name(record.id, number),
            **backend.headers,
        }
        if record.trace is not None:
            headers["traceparent"] = record.trace.header
        body = encode_members(build_upstream_members(ask, deployment.served_name))
        answer: BackendResponse | None = None
        opened: UpstreamResponse | None = None
        try:
            lifeline.set_deadline(seconds, CancelReason.SILENT)
            # Once it has cost a connection its life, it is not sent again silently.
            harmless = all(a.reason != ConnectionLost.reason for a in record.attempts)
            answer = await self._client.post(
                backend.build_url(ask.kind.url_path), body, headers, resend=harmless
            )
            if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                await self._raise_refused(answer)
            begun = UpstreamResponse(scored, deployment, backend, answer)
            if ask.stream:
                await self._open_stream(ask, begun, deployment)
            else:
                await self._read_unary(begun)
            self._check_id(begun, number)
            opened = begun
        except asyncio.CancelledError:
            if not lifeline.resume_after_silence():
                raise
            raise BackendTimeout(
                f"{backend.label} said nothing useful within {seconds:g} s"
            ) from None
        finally:
            lifeline.clear_deadline()
            if opened is None and answer is not None:
                answer.close()
        return opened

    def _check_id(self, begun: UpstreamResponse, number: int) -> None:
        """Raise InvalidResponse for another request's answer, and never use its connection."""
        answered = (
            begun.stream.id if begun.stream is not None else begun.unary and begun.unary.text_id
        )
        if answered and self._sent_ids.is_anothers(answered, number):
            begun.answer.discard()
            if begun.held is not None:
                begun.held.release()
            raise InvalidResponse("the answer to another request")

    async def _raise_refused(self, answer: BackendResponse) -> None:
        if answer.status < HTTPStatus.BAD_REQUEST:
            raise InvalidResponse(f"a redirect ({answer.status}); they are not followed")
        body = await answer.read_body(self._max_answer_bytes)
        raise BackendStatusError(answer.status, body, answer.get_header("Retry-After"))

    async def _open_stream(
        self, ask: InferenceRequest, opened: UpstreamResponse, deployment: Deployment
    ) -> None:
        content_type = opened.answer.get_header("Content-Type") or ""
        if not content_type.startswith("text/event-stream"):
            # A 200 that is no stream: maybe an error in JSON, which parse_unary raises.
            parse_unary(await opened.answer.read_body(self._max_answer_bytes))
            raise InvalidResponse(
                f"{content_type or 'no content type'} where a stream was asked for"
            )
        opened.stream = StreamedResponse(
            opened.answer, deployment.model, wants_usage=ask.wants_usage, single=ask.is_single
        )
        await opened.stream.read_to_first_content()

    async def _read_unary(self, opened: UpstreamResponse) -> None:
        held = HeldBytes(self.bytes_in_flight)
        try:
            opened.body = await opened.answer.read_body(self._max_answer_bytes, held.hold)
            opened.unary = parse_unary(opened.body)
            opened.held = held
        finally:
            if opened.held is None:
                held.release()


def _classify_refusal(error: BackendStatusError, backend: Backend) -> None:
    """Tell a backend's failure from a refusal of the request, which raises UpstreamRejection."""
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        backend.record_failure(str(error))
    elif error.status not in (HTTPStatus.TOO_MANY_REQUESTS, *UNAUTHORISED):
        backend.record_success()
        raise UpstreamRejection(error.status, error.body) from None
