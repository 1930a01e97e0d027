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
from gateway.service.accounting.accounting import RequestAccounting
from gateway.service.accounting.outcome import (
    build_response_headers,
    note_served,
    note_upstream_response,
)
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
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.plan import RoutingPlan, no_candidate_error
from gateway.service.request.planner import RequestPlanner
from gateway.service.request.previous_response import keep_to_place
from gateway.service.request_gate import RequestGate
from gateway.service.unary_answer import send_unary_answer
from gateway.service.upstream.dispatcher import UpstreamDispatcher
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import ClientOutcome

_log = logging.getLogger("joulegate")

_OK = HTTPStatus.OK.value
_ANSWERED = ClientOutcome(_OK)
NO_LOG = LogConfig()
DEFAULT_LIMITS = LimitsConfig()


class RequestPipeline:
    """Everything that serving a request needs; one per process."""

    def __init__(
        self,
        *,
        planner: RequestPlanner,
        deployments: tuple[Deployment, ...],
        dispatcher: UpstreamDispatcher,
        metrics: GatewayMetrics,
        accounting: RequestAccounting,
        stall_seconds: float,
        stream_seconds: float,
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
        self.holder = holder
        self._log = log
        self.planner = planner
        self.deployments = deployments
        self.metrics = metrics
        self.accounting = accounting
        self.draining = False
        self._requests_in_flight = InflightRequests()
        self.dispatcher = dispatcher
        self._failures = FailureReporter(
            metrics, stall_seconds=stall_seconds, stream_seconds=stream_seconds
        )
        self._stall_seconds = stall_seconds
        self._stream_seconds = stream_seconds

    @property
    def backends(self) -> list[Backend]:
        """Every backend, once."""
        return list_backends(self.deployments)

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
        self.planner.deciding.load.add(running, time.monotonic())
        self.accounting.flush()
        price = self.planner.deciding.price
        if price is not None:
            price.update(time.monotonic())
            self.metrics.energy_price.set(price.value)

    def publish_gauges(self) -> None:
        """Set the gauges that are read off what they tell of, for whoever scrapes next."""
        self.metrics.fleet.publish_backends(self.deployments)
        self.metrics.reference_load.set(self.planner.deciding.reference_load)
        self.metrics.fleet.publish_meters(self.accounting.meters)
        if self.gate is not None:
            self.gate.admission.publish_metrics()

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
        target, baseline = self.planner.note_target(ask, record)
        hold = (
            None
            if self.spending is None
            else await self.spending.begin_request(
                ask.caller, waits=self.gate is not None or self.holder is not None
            )
        )
        made = (
            self.planner.plan_target(ask, target, headers, baseline)
            if self.gate is None
            else await self.gate.admit(
                lifeline,
                record,
                ask,
                partial(self.planner.plan_target, ask, target, headers, baseline),
            )
        )
        if self.holder is not None and not made.decision.candidates:
            made = await self.holder.hold_request(
                made, partial(self.planner.plan_target, ask, target, headers, baseline)
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
                await reply.start_stream(_OK, [*SSE, *head])
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
                self.planner.deciding.refund_draw(ask)
                raise
            if made.decision.exploration is None:
                self.planner.deciding.refund_draw(ask)
