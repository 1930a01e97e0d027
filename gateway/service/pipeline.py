"""One request, top to bottom: decode -> plan -> dispatch -> relay -> record."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus

from backends.errors import BackendError, ResponseTooLarge, forget_frames
from backends.periodic import run_periodically
from backends.registry import Backend, Deployment, list_backends
from gateway.config import LimitsConfig, LogConfig
from gateway.experiment_config import BaselineConfig, ExperimentConfig
from gateway.scheduling.switchback import BASELINE
from gateway.service.accounting.accounting import RequestAccounting
from gateway.service.accounting.outcome import (
    build_response_headers,
    note_served,
    note_upstream_response,
)
from gateway.service.byte_budget import ByteBudget
from gateway.service.callers.api_keys import ApiKeys
from gateway.service.callers.request_hold import RequestHold
from gateway.service.callers.spending import KeySpending
from gateway.service.client.api_error import ApiError
from gateway.service.client.cancellation import (
    SWEEP_SECONDS,
    CancelReason,
    InflightRequests,
    RequestCancellation,
)
from gateway.service.client.errors import StreamInterrupted
from gateway.service.client.failed_request import FailureReporter
from gateway.service.client.response import SSE, ResponseWriter
from gateway.service.holding import RequestHolder
from gateway.service.request.deciding import Deciding
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.named_endpoints import NamedEndpoint
from gateway.service.request.named_request import check_named_target
from gateway.service.request.plan import RoutingPlan, make_plan, no_candidate_error
from gateway.service.request.previous_response import keep_to_place, pin_to_previous
from gateway.service.request.profiles import ActiveProfiles
from gateway.service.request.response_ids import ResponseIds
from gateway.service.request.routing_table import ModelNames, RequestTarget
from gateway.service.request_gate import RequestGate
from gateway.service.unary_answer import send_unary_answer
from gateway.service.upstream.dispatcher import UpstreamDispatcher
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import ClientOutcome, ParsedRequest, RequestedName
from gateway.tokens import TokenCounter

_log = logging.getLogger("joulegate")

_OK = HTTPStatus.OK.value
_ANSWERED = ClientOutcome(_OK)
NO_LOG = LogConfig()
DEFAULT_LIMITS = LimitsConfig()
_NO_ARM = (None, None)


class RequestPipeline:
    """Everything that serving a request needs; one per process."""

    def __init__(
        self,
        *,
        names: ModelNames,
        profiles: ActiveProfiles,
        deployments: tuple[Deployment, ...],
        counter: TokenCounter,
        dispatcher: UpstreamDispatcher,
        metrics: GatewayMetrics,
        accounting: RequestAccounting,
        stall_seconds: float,
        stream_seconds: float,
        experiment: ExperimentConfig | None = None,
        deciding: Deciding | None = None,
        log: LogConfig = NO_LOG,
        limits: LimitsConfig = DEFAULT_LIMITS,
        passed_headers: frozenset[bytes] | None = None,
        keys: ApiKeys | None = None,
        holder: RequestHolder | None = None,
        spending: KeySpending | None = None,
    ) -> None:
        self.limits = limits
        self.passed_headers = passed_headers
        self.keys = keys
        self.gate: RequestGate | None = None
        self.spending = spending
        self.deciding = deciding or Deciding()
        self.holder = holder
        self._log = log
        self.names = names
        self.profiles = profiles
        self.deployments = deployments
        self.metrics = metrics
        self.accounting = accounting
        self.draining = False
        self._requests_in_flight = InflightRequests()
        self._counter = counter
        self.dispatcher = dispatcher
        self._failures = FailureReporter(
            metrics, stall_seconds=stall_seconds, stream_seconds=stream_seconds
        )
        self._stall_seconds = stall_seconds
        self._stream_seconds = stream_seconds
        self._switchback = None if experiment is None else experiment.make_switchback()
        self._baseline = None if experiment is None else experiment.baseline

    @property
    def backends(self) -> list[Backend]:
        """Every backend, once."""
        return list_backends(self.deployments)

    @property
    def response_ids(self) -> ResponseIds:
        """What finds the backend of a response."""
        return self.dispatcher.response_ids

    @property
    def bytes_in_flight(self) -> ByteBudget:
        """What requests and answers may hold at once."""
        return self.dispatcher.bytes_in_flight

    @property
    def inflight_requests(self) -> int:
        """Requests being served now."""
        return len(self._requests_in_flight)

    def cancel_all(self) -> None:
        """Cancel what is still in flight, at the drain deadline."""
        self._requests_in_flight.cancel_all(CancelReason.DRAINING)

    async def run_periodic_work(self) -> None:
        """Check deadlines and flush finished requests, until cancelled."""
        try:
            await run_periodically(
                self._run_round, SWEEP_SECONDS, "checking deadlines and accounting"
            )
        finally:
            self.accounting.flush()

    def _run_round(self) -> None:
        self._requests_in_flight.check_deadlines()
        running = [sum(backend.running_and_queued) for backend in self.backends]
        self.deciding.load.add(running, time.monotonic())
        self.accounting.flush()
        price = self.deciding.price
        if price is not None:
            price.update(time.monotonic())
            self.metrics.energy_price.set(price.value)

    def publish_gauges(self) -> None:
        """Set the gauges that are read off what they tell of, for whoever scrapes next."""
        self.metrics.fleet.publish_backends(self.deployments)
        self.metrics.reference_load.set(self.deciding.reference_load)
        self.metrics.fleet.publish_meters(self.accounting.meters)
        if self.gate is not None:
            self.gate.admission.publish_metrics()

    def plan_request(self, ask: InferenceRequest, headers: Mapping[bytes, bytes]) -> RoutingPlan:
        """Decide without sending. Raises BadRequest, UnknownModel or ModelNotAllowed."""
        return self._plan_target(ask, self._resolve_name(ask), headers, draws=False)

    def _plan_target(
        self,
        ask: InferenceRequest,
        target: RequestTarget,
        headers: Mapping[bytes, bytes],
        baseline: BaselineConfig | None = None,
        *,
        draws: bool = True,
    ) -> RoutingPlan:
        return make_plan(
            ask, target, headers, self.profiles.live, self._counter, self.deciding, baseline,
            draws=draws,
        )  # fmt: skip

    async def handle_request(
        self,
        record: RequestRecord,
        load: Callable[[], Awaitable[InferenceRequest]],
        headers: Mapping[bytes, bytes],
        reply: ResponseWriter,
        lifeline: RequestCancellation,
    ) -> None:
        """Serve one inference request and record its outcome; errors go to the client.

        `load` reads and decodes the request: awaited in here, so that a bad body is recorded as any
        other refusal is.
        """
        started = time.perf_counter()
        self._requests_in_flight.add_request(lifeline)
        try:
            error = await self._try_serving(record, load, headers, reply, lifeline, started)
            if error is not None:
                await self._failures.send_error(record, reply, lifeline, error)
        finally:
            if self.gate is not None:
                self.gate.leave(lifeline, record)
            self._requests_in_flight.remove_request(lifeline)
            record.seconds = time.perf_counter() - started
            self.accounting.add_record(record)

    async def _try_serving(
        self,
        record: RequestRecord,
        load: Callable[[], Awaitable[InferenceRequest]],
        headers: Mapping[bytes, bytes],
        reply: ResponseWriter,
        lifeline: RequestCancellation,
        started: float,
    ) -> ApiError | None:
        """Serve a request; return the error that its client is still to be sent, if any."""
        try:
            await self._serve_request(record, load, headers, reply, lifeline, started)
        except ApiError as error:
            return forget_frames(error)
        except asyncio.CancelledError:
            cut = lifeline.consume(client_blocked=reply.blocked)
            if cut is None:
                raise
            return self._failures.resolve_cancellation(record, reply, cut)
        except Exception:  # noqa: BLE001 - a bug must cost one request, not the connection's task
            _log.exception("request %s: a bug", record.id)
            return ApiError("internal error")
        return None

    async def _serve_request(
        self,
        record: RequestRecord,
        load: Callable[[], Awaitable[InferenceRequest]],
        headers: Mapping[bytes, bytes],
        reply: ResponseWriter,
        lifeline: RequestCancellation,
        started: float,
    ) -> None:
        ask = await load()
        target, baseline = self._note_target(ask, record)
        hold = (
            None
            if self.spending is None
            else await self.spending.begin_request(
                ask.caller, waits=self.gate is not None or self.holder is not None
            )
        )
        made = (
            self._plan_target(ask, target, headers, baseline)
            if self.gate is None
            else await self.gate.admit(
                lifeline, record, ask, partial(self._plan_target, ask, target, headers, baseline)
            )
        )
        if self.holder is not None and not made.decision.candidates:
            made = await self.holder.hold_request(
                made, partial(self._plan_target, ask, target, headers, baseline)
            )
        made.note(record, self._log)
        await self._admit_plan(made, record, hold)
        open_response = partial(
            self.dispatcher.open_response,
            ask,
            keep_to_place(ask, made.decision.candidates),
            made.snapshot,
            made.selected_backends,
            record,
            lifeline,
            last_resort=made.last_resort,
        )
        opened = await (
            open_response()
            if self.holder is None
            else self.holder.open_once_awake(made, open_response)
        )
        ttft_seconds: float | None = None
        try:
            note_upstream_response(record, opened, made.snapshot)
            head = build_response_headers(record, opened, made, self.passed_headers)
            explain = partial(made.explain_answer, record) if made.steering.explain else None
            self.accounting.impact.attach_to(opened, record, wanted=made.steering.impact)
            if opened.stream is None:
                await send_unary_answer(opened, reply, head, explain)
                record.outcome = _ANSWERED
            else:
                ttft_seconds = time.perf_counter() - started
                self._begin_stream(ask, lifeline, explains=explain is not None)
                await reply.start_response(_OK, [*SSE, *head])
                head.clear()  # not to be held to the stream's end
                await opened.stream.relay_to_client(reply, lifeline, explain)
                record.outcome = _ANSWERED
                opened.backend.record_success()
                opened.stream.release_connection()
        except BackendError as error:
            if not isinstance(error, ResponseTooLarge):
                opened.backend.record_failure(f"{error.reason}: {error}", answered=error.answered)
            self._failures.note_broken(record, error.reason, str(error))
            raise StreamInterrupted(f"{record.model} broke off: {error}") from error
        except asyncio.CancelledError:
            cause = lifeline.find_cause(client_blocked=reply.blocked)
            if cause is CancelReason.STALLED:
                opened.backend.record_failure("stalled within a stream")
            raise
        finally:
            try:
                if opened.stream is not None:
                    # What comes after the last chunk is the client's time, or the connection's.
                    opened.ended = max(opened.ended, lifeline.last)
                    opened.measure_load()
                if ask.kind.generates:
                    note_served(record, opened, made.snapshot, ttft_seconds)
            finally:
                self.dispatcher.close_response(opened)

    def _begin_stream(
        self, ask: InferenceRequest, lifeline: RequestCancellation, *, explains: bool
    ) -> None:
        """Set a stream's deadlines; nobody else can be asked any more, so its body is let go."""
        lifeline.set_deadline(self._stall_seconds, CancelReason.STALLED)
        lifeline.end_within(self._stream_seconds)
        ask.forget_body(keeps_words=explains)

    def _note_target(
        self, ask: InferenceRequest, record: RequestRecord
    ) -> tuple[RequestTarget, BaselineConfig | None]:
        """Note what a request asks for; return it, and the baseline that it is to be served by."""
        record.parsed = ParsedRequest(ask.stream)
        target = self._resolve_target(ask)
        arm, baseline = self._draw_arm(record.received.at) if target.model is None else _NO_ARM
        record.target = RequestedName(target.label, target.preset, arm)
        return target, baseline

    async def _admit_plan(
        self, made: RoutingPlan, record: RequestRecord, hold: RequestHold | None
    ) -> None:
        """Raise ApiError where nobody can serve a request, or its key has too little left."""
        ask = made.ask
        if not made.decision.candidates:
            raise no_candidate_error(
                made.decision, ask.kind.prompt_member, wait=made.find_shortest_wait()
            )
        if self.spending is not None and hold is not None:
            try:
                await self.spending.admit_plan(hold, made, record)
            except ApiError:
                made.forget_draw(record)
                self.deciding.refund_draw(ask)
                raise
            if made.decision.exploration is None:
                self.deciding.refund_draw(ask)

    def _resolve_target(self, ask: InferenceRequest) -> RequestTarget:
        """Return the models that may serve a request.

        Raises UnknownModel, ModelNotAllowed, UnknownResponse.
        """
        target = self._resolve_name(ask)
        if ask.kind is EndpointKind.RESPONSES:
            return pin_to_previous(ask, target, self.response_ids)
        if isinstance(ask.kind, NamedEndpoint):
            check_named_target(target)
        return target

    def _resolve_name(self, ask: InferenceRequest) -> RequestTarget:
        """Return what the asked name means for who asks. Raises UnknownModel, ModelNotAllowed."""
        names = self.names if ask.caller is None else ask.caller.names
        return names.resolve_name(ask.model)

    def _draw_arm(self, at: float) -> tuple[str | None, BaselineConfig | None]:
        """Return the arm that a request routed `at` then counts for; the baseline, where due."""
        if self._switchback is None:
            return _NO_ARM
        due = self._switchback.arm_in_force(at) == BASELINE
        return self._switchback.arm_at(at), self._baseline if due else None
