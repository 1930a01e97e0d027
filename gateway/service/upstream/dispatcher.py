"""Sending one request: backends of the best deployment, then the next-ranked, until one answers.

Rules: nothing has reached the client while this goes on; each further attempt needs a token of the
retry budget, unless the one before cost nothing; vLLM's own refusals (400, 422 …) end it at once;
whose fault a failure is: `failed_attempts`. Where no backend is available a plan may name one of
last resort; those whose Retry-After is not over are then asked once.
"""

import time
from collections.abc import Iterator, Sequence

from backends.client import BackendClient
from backends.errors import BackendError, BackendStatusError, ResponseTooLarge
from backends.registry import Backend, Deployment
from gateway.config import GatewayConfig, LimitsConfig, RetryConfig, TimeoutsConfig
from gateway.scheduling.decision import ScoredCandidate
from gateway.service.byte_budget import ByteBudget
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.client.errors import BadGateway
from gateway.service.client.passed_headers import fold_names
from gateway.service.request.candidates import SelectedBackends
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.response_ids import ResponseIds
from gateway.service.request.routing_table import RoutedDeployment, RoutingSnapshot
from gateway.service.upstream import metering
from gateway.service.upstream.endpoint_refusal import check_endpoint_served
from gateway.service.upstream.failed_attempts import FailedAttempts
from gateway.service.upstream.prompt_backlog import PromptBacklog
from gateway.service.upstream.relay import UnaryResponse
from gateway.service.upstream.request_sender import RequestSender
from gateway.service.upstream.retry_budget import RetryBudget
from gateway.service.upstream.upstream_response import UpstreamResponse
from gateway.service.upstream.waste import ABANDONED, estimate_waste, guess_unseen_tokens
from gateway.telemetry.boundary_account import (
    BoundaryAccount,
    begin_host_share,
    end_host_share,
)
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import BackendAttempt
from gateway.telemetry.trace_context import TraceSampler


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
        response_ids: ResponseIds | None = None,
        passed_headers: frozenset[bytes] | None = None,
    ) -> None:
        self._metrics = metrics
        self.response_ids = response_ids or ResponseIds((), None)
        self._max_attempts = retry.max_attempts
        self._sampler = sampler
        self._boundary = boundary
        self.bytes_in_flight = bytes_in_flight or ByteBudget(limits.max_bytes_in_flight)
        self._sender = RequestSender(
            client, timeouts, limits, self.bytes_in_flight, self.response_ids, passed_headers
        )
        self.budget = RetryBudget(retry.budget_ratio, retry.budget_start, retry.budget_max)

    def change_config(self, config: GatewayConfig, deployments: tuple[Deployment, ...]) -> None:
        """Send by another configuration's limits, to its backends, from now on."""
        self.response_ids.change_deployments(deployments)
        self.bytes_in_flight.most = config.limits.max_bytes_in_flight
        self._sender.max_answer_bytes = config.limits.max_answer_bytes
        self._sender.passed_headers = fold_names(config.headers.to_backends)

    async def open_response(
        self,
        ask: InferenceRequest,
        ranked: Sequence[ScoredCandidate],
        snapshot: RoutingSnapshot,
        picks: SelectedBackends,
        record: RequestRecord,
        lifeline: RequestCancellation,
        *,
        last_resort: bool = False,
    ) -> UpstreamResponse:
        """Attempt backends in order until one responds.

        The backend's in-flight count stays up until `close_response`. Raises UpstreamRejection,
        BackendsUnavailable, BackendsRateLimited, BadGateway or GatewayTimeout once no attempt
        is left. `last_resort`: the plan was made of backends that are asked for want of another.
        """
        if self._sampler is not None:
            record.trace = self._sampler.begin_span(record.trace)
        self.budget.earn_token()
        failed = FailedAttempts()
        try:
            for scored, place, backend in self._iterate_backends(
                ask, ranked, snapshot, picks, failed, last_resort=last_resort
            ):
                if failed.errors:
                    if not self._may_go_on(failed):
                        break
                    reason = failed.errors[-1].reason
                    self._metrics.retry_count(record.attempts[-1].model, reason).inc()
                opened = await self._attempt_backend(
                    ask, scored, place, backend, record, lifeline, failed
                )
                if opened is not None:
                    return opened
            raise failed.build_error()
        finally:
            failed.blame_backends()

    def _may_go_on(self, failed: FailedAttempts) -> bool:
        """Tell whether one more attempt may be made, and pay for it."""
        if failed.is_requests_fault or failed.count >= self._max_attempts:
            return False
        return failed.cost_nothing or self.budget.take_token()

    def close_response(self, opened: UpstreamResponse) -> None:
        """Close or return the connection, and count the request out."""
        try:
            if opened.metered is not None and opened.stream is not None:
                metering.end_streamed(opened.metered, opened.stream)
        finally:
            opened.answer.close()
            opened.deployment.end_request(opened.backend, opened.half_open_trial)
            end_host_share(opened.host_share)
            if opened.held is not None:
                opened.held.release()

    def _iterate_backends(
        self,
        ask: InferenceRequest,
        ranked: Sequence[ScoredCandidate],
        snapshot: RoutingSnapshot,
        picks: SelectedBackends,
        failed: FailedAttempts,
        *,
        last_resort: bool,
    ) -> Iterator[tuple[ScoredCandidate, RoutedDeployment, Backend]]:
        """Yield the backends to attempt: the best deployment's available ones, then the next's.

        Once a context was refused, only deployments with a larger one.
        """
        for scored in ranked:
            place = snapshot.by_name[scored.model, scored.deployment]
            deployment = place.deployment
            if ask.place is not None:
                # Only it holds what the request goes on from.
                if deployment.can_ask(ask.place.backend, last_resort=True):
                    yield scored, place, ask.place.backend
                continue
            tried: set[Backend] = set()
            backend = picks.get((scored.model, scored.deployment))
            if backend is None:
                backend = deployment.find(scored.backend)
            if (
                backend is None
                or backend in failed.tried
                or not deployment.can_ask(backend, last_resort=last_resort)
            ):
                backend = deployment.pick_backend(failed.tried, last_resort=last_resort)
            while backend is not None and place.option.context > failed.refused_context:
                tried.add(backend)
                if not (failed.errors and backend.wait_seconds > 0.0):
                    yield scored, place, backend
                backend = deployment.pick_backend(failed.tried | tried, last_resort=last_resort)

    async def _attempt_backend(
        self,
        ask: InferenceRequest,
        scored: ScoredCandidate,
        place: RoutedDeployment,
        backend: Backend,
        record: RequestRecord,
        lifeline: RequestCancellation,
        failed: FailedAttempts,
    ) -> UpstreamResponse | None:
        """Attempt one backend; None where the next is to be attempted. Raises UpstreamRejection."""
        began = time.monotonic()
        running, _ = backend.running_and_queued
        trial = place.deployment.begin_request(backend)
        load_before = backend.last_integral
        model_trial = place.deployment.begin_trial(backend)
        backlog = PromptBacklog(backend, scored, place.option, stream=ask.stream)
        metered = metering.begin_attempt(backend, place, scored) if ask.kind.generates else None
        share = begin_host_share(self._boundary, record, scored.model, backend.label)
        opened: UpstreamResponse | None = None
        reason: str | None = ABANDONED
        try:
            opened = await self._sender.send_request(
                ask, scored, place.deployment, backend, record, lifeline
            )
            opened.half_open_trial, opened.running, opened.metered = trial, running, metered
            opened.began, opened.ended = began, time.monotonic()
            opened.load_before, opened.host_share = load_before, share
            opened.measure_load()
            reason = None
        except ResponseTooLarge as error:
            # The request's doing: another backend would send as much.
            reason = error.reason
            raise BadGateway(str(error), code="answer_too_large") from None
        except BackendError as error:
            reason = error.reason
            if isinstance(error, BackendStatusError):
                check_endpoint_served(ask, scored.model, backend, error)
            failed.add_failure(error, backend, place.deployment, place.option.context)
        else:
            # A stream has yet to end before it counts as a success.
            backend.record_first_content() if ask.stream else backend.record_success()
            place.deployment.record_found(backend)
            if metered is not None and opened.stream is not None:
                metering.note_first_token(metered, record, opened.stream, lifeline)
            elif metered is not None:
                metering.end_unary(metered, record, opened.unary or UnaryResponse(), place.option)
        finally:
            backlog.release()
            place.deployment.end_trial(backend, model_trial)
            record.attempts.append(BackendAttempt(scored.model, backend.label, reason))
            if self._sampler is not None:
                self._sampler.record_attempt(record.trace, began)
            if opened is None:
                place.deployment.end_request(backend, trial)
                end_host_share(share)
                seconds = time.monotonic() - began
                wasted = estimate_waste(reason, scored, seconds) if ask.kind.generates else []
                record.wasted += wasted
                if metered is not None:
                    guess = guess_unseen_tokens(
                        place.option, scored.tokens_in, running, seconds, record.sequences
                    )
                    metering.end_failed(metered, record, guess if wasted else None)
        return opened
