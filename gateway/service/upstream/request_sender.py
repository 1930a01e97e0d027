"""Sending one request to one backend, up to its first content or its whole answer.

Rules: each request goes by an id of its own; an answer with another request's id is refused, and
its connection dropped; redirects are not followed; what was begun and not returned is closed.
"""

import asyncio
from http import HTTPStatus

from backends.client import BackendClient, BackendResponse
from backends.errors import BackendStatusError, BackendTimeout, ConnectionLost, InvalidResponse
from backends.http.url import RequestUrl
from backends.registry import Backend, Deployment
from backends.retry_after import parse_retry_after
from gateway.config import LimitsConfig, TimeoutsConfig
from gateway.scheduling.decision import ScoredCandidate
from gateway.service.byte_budget import ByteBudget, HeldBytes
from gateway.service.client import headers as names
from gateway.service.client.cancellation import CancelReason, RequestCancellation
from gateway.service.client.passed_headers import join_headers, select_headers
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.response_ids import ResponseIds
from gateway.service.upstream.answer_formats import make_stream, parse_answer
from gateway.service.upstream.sent_ids import SentIds
from gateway.service.upstream.upstream_body import encode_upstream_body
from gateway.service.upstream.upstream_response import UpstreamResponse
from gateway.telemetry.record import RequestRecord


class RequestSender:
    """Sends requests to backends for one process, each to one."""

    def __init__(
        self,
        client: BackendClient,
        timeouts: TimeoutsConfig,
        limits: LimitsConfig,
        bytes_in_flight: ByteBudget,
        response_ids: ResponseIds,
        passed_headers: frozenset[bytes] | None = None,
    ) -> None:
        self._response_ids = response_ids
        self.passed_headers = passed_headers
        self._client = client
        self._timeouts = timeouts
        self.max_answer_bytes = limits.max_answer_bytes
        self._sent_ids = SentIds()
        self._bytes_in_flight = bytes_in_flight

    async def send_request(
        self,
        ask: InferenceRequest,
        scored: ScoredCandidate,
        deployment: Deployment,
        backend: Backend,
        record: RequestRecord,
        lifeline: RequestCancellation,
    ) -> UpstreamResponse:
        """Send a request to one backend; return once its answer has begun, or is whole.

        Raises BackendError; a deadline of `lifeline` that passes is a BackendTimeout.
        """
        seconds = self._timeouts.first_token_seconds if ask.stream else self._timeouts.unary_seconds
        number = self._sent_ids.number()
        made_as = None
        if ask.kind is EndpointKind.RESPONSES:
            made_as = self._response_ids.make_id(backend, number, record.tenant)
        content_type, body = encode_upstream_body(ask, deployment.served_name, made_as)
        headers = {
            "Content-Type": content_type,
            "X-Request-Id": self._sent_ids.name(record.id, number),
            **backend.headers,
        }
        if record.trace is not None:
            headers["traceparent"] = record.trace.header
        if record.received.load_format:
            headers[names.LOAD_FORMAT] = record.received.load_format
        if self.passed_headers is not None:
            headers |= join_headers(select_headers(ask.headers, self.passed_headers))
        answer: BackendResponse | None = None
        opened: UpstreamResponse | None = None
        try:
            lifeline.set_deadline(seconds, CancelReason.SILENT)
            # Once it has cost a connection its life, it is not sent again silently.
            harmless = not record.attempts or all(
                attempt.reason != ConnectionLost.reason for attempt in record.attempts
            )
            answer = await self._client.request(
                ask.kind.method, _find_url(ask, backend), body, headers, resend=harmless
            )
            if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                await self._raise_refused(answer)
            begun = UpstreamResponse(scored, deployment, backend, answer)
            if ask.stream:
                await self._open_stream(ask, begun, deployment)
            else:
                await self._read_unary(ask, begun)
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
        body = await answer.read_body(self.max_answer_bytes)
        wait = parse_retry_after(answer.get_header("Retry-After"), answer.get_header("Date"))
        raise BackendStatusError(answer.status, body, wait)

    async def _open_stream(
        self, ask: InferenceRequest, opened: UpstreamResponse, deployment: Deployment
    ) -> None:
        content_type = opened.answer.get_header("Content-Type") or ""
        if not content_type.startswith("text/event-stream"):
            # A 200 that is no stream: maybe an error in JSON, which this raises.
            parse_answer(
                ask.kind, await opened.answer.read_body(self.max_answer_bytes), content_type
            )
            raise InvalidResponse(
                f"{content_type or 'no content type'} where a stream was asked for"
            )
        opened.stream = make_stream(ask, opened.answer, deployment.model)
        await opened.stream.read_to_first_content()

    async def _read_unary(self, ask: InferenceRequest, opened: UpstreamResponse) -> None:
        held = HeldBytes(self._bytes_in_flight)
        try:
            opened.body = await opened.answer.read_body(self.max_answer_bytes, held.hold)
            opened.content_type = opened.answer.get_header("Content-Type")
            opened.unary = parse_answer(ask.kind, opened.body, opened.content_type)
            opened.held = held
        finally:
            if opened.held is None:
                held.release()


def _find_url(ask: InferenceRequest, backend: Backend) -> RequestUrl:
    """Return where a request goes; a path with an id in it is not kept."""
    if ask.path is None:
        return backend.build_url(ask.kind.url_path)
    return backend.parse_url(ask.path)
