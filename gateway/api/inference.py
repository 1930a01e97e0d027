"""The inference endpoints: one ASGI handler, made for each kind."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

from litestar import asgi
from litestar.types import HTTPScope, Receive, Scope, Send

from gateway.api.callers import read_caller_head
from gateway.api.incoming import ClientDisconnected, read_body
from gateway.api.protocol import CONNECTION_KEY, PIECES, ClientConnection
from gateway.config import TimeoutsConfig
from gateway.service.byte_budget import HeldBytes
from gateway.service.client.cancellation import CancelReason, RequestCancellation
from gateway.service.client.error_shapes import find_error_shape
from gateway.service.client.response import PieceWriter, ResponseWriter
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.body import decode_members, parse_request
from gateway.service.request.caller import Caller
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.named_endpoints import NamedEndpoint
from gateway.service.request.routing_table import OTHER
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import ReceivedRequest, RequestedName

_UNRESOLVED = RequestedName(OTHER, "none")


def make_handler(kind: EndpointKind, gateway: RequestPipeline, timeouts: TimeoutsConfig) -> Any:
    """Make the route handler of one endpoint."""

    @asgi(kind.url_path, name=kind.value, copy_scope=False)
    async def handle_inference(scope: Scope, receive: Receive, send: Send) -> None:
        await serve_request(kind, decode_request, gateway, timeouts, scope, receive, send)  # type: ignore[arg-type]

    def decode_request(body: bytes, _: Caller | None) -> InferenceRequest:
        return parse_request(kind, decode_members(body))

    return handle_inference


async def serve_request(
    kind: EndpointKind | NamedEndpoint,
    decode: Callable[[bytes, Caller | None], InferenceRequest],
    gateway: RequestPipeline,
    timeouts: TimeoutsConfig,
    scope: HTTPScope,
    receive: Receive,
    send: Send,
) -> None:
    """Serve one request: `decode` makes it of its body and caller, and raises BadRequest."""
    head = read_caller_head(scope, gateway.keys, method=kind.method)
    extensions = cast("dict[str, Any]", scope.get("extensions") or {})
    link: ClientConnection | None = extensions.get(CONNECTION_KEY)
    pieces: PieceWriter | None = extensions.get(PIECES)
    reply = ResponseWriter(
        send,
        head.request_id,
        abort=link.abort if link else None,
        pieces=pieces,
        shape=find_error_shape(kind.url_path),
    )
    received = ReceivedRequest(
        head.request_id, time.time(), kind.value, head.load_format, head.identity,
        head.read_timeout, find_client(scope, wanted=gateway.accounting.access_log is not None),
    )  # fmt: skip
    record = RequestRecord(received, _UNRESOLVED, head.trace)
    lifeline = RequestCancellation()
    held = HeldBytes(gateway.dispatcher.bytes_in_flight)
    watcher: asyncio.Task[None] | None = None

    async def load_request() -> InferenceRequest:
        nonlocal watcher
        try:
            body = await read_body(
                head,
                receive,
                limit=gateway.limits.max_body_bytes,
                seconds=timeouts.body_seconds,
                ready=link is not None and link.body_ready,
                held=held,
            )
            ask = decode(body, head.caller)
        except ClientDisconnected:
            lifeline.cancel(CancelReason.CLIENT_GONE)
            # The cancellation arrives at the next wait.
            await asyncio.sleep(0)
            raise
        else:
            ask.caller = head.caller
            ask.headers = scope["headers"]
            return ask
        finally:
            if link is None:
                # Only now: ASGI has one queue for the body and the news that the client left.
                watcher = asyncio.create_task(_watch_disconnect(receive, cancel_client_gone))

    def cancel_client_gone() -> None:
        # A server also says `disconnect` when an answer is complete.
        if not reply.ended:
            lifeline.cancel(CancelReason.CLIENT_GONE)

    if link is not None:
        link.on_lost = cancel_client_gone
    try:
        await gateway.handle_request(record, load_request, head.steering, reply, lifeline)
    finally:
        held.release()
        # It holds the connection's cycle, which holds the scope.
        extensions.pop(PIECES, None)
        # The connection's next request may have begun, and put itself there.
        if link is not None and link.on_lost is cancel_client_gone:
            link.on_lost = None
        if watcher is not None:
            watcher.cancel()


def find_client(scope: HTTPScope, *, wanted: bool) -> str:
    """Return the address that a request came from, its peer's whatever a header says; or ""."""
    peer = scope.get("client") if wanted else None
    return "" if peer is None else str(peer[0])


async def _watch_disconnect(receive: Receive, gone: Callable[[], None]) -> None:
    """Wait for the client to leave, under a server without a `ClientConnection`."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone()
