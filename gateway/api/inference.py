"""The three inference endpoints: one ASGI handler, told which kind it serves."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

from litestar import asgi
from litestar.types import HTTPScope, Receive, Scope, Send

from gateway.api.incoming import ClientLeft, read_head, read_members
from gateway.api.protocol import LINK, PIECES, Link
from gateway.config import LimitsConfig, TimeoutsConfig
from gateway.service.byte_budget import HeldBytes
from gateway.service.client.cancellation import Cut, Lifeline
from gateway.service.client.response import PieceWriter, Reply
from gateway.service.pipeline import Gateway
from gateway.service.request.body import Kind, Members
from gateway.service.request.routing_table import OTHER
from gateway.telemetry.record import Record


def handler(kind: Kind, gateway: Gateway, limits: LimitsConfig, timeouts: TimeoutsConfig) -> Any:
    """Make the route handler of one endpoint."""

    @asgi(kind.path, name=kind.value, copy_scope=False)
    async def infer(scope: Scope, receive: Receive, send: Send) -> None:
        await _infer(kind, gateway, limits, timeouts, scope, receive, send)  # type: ignore[arg-type]

    return infer


async def _infer(
    kind: Kind,
    gateway: Gateway,
    limits: LimitsConfig,
    timeouts: TimeoutsConfig,
    scope: HTTPScope,
    receive: Receive,
    send: Send,
) -> None:
    head = read_head(scope)
    extensions = cast("dict[str, Any]", scope.get("extensions") or {})
    link: Link | None = extensions.get(LINK)
    pieces: PieceWriter | None = extensions.get(PIECES)
    reply = Reply(send, head.request_id, abort=link.abort if link else None, pieces=pieces)
    record = Record(
        id=head.request_id,
        at=time.time(),
        kind=kind.value,
        requested=OTHER,
        preset="none",
        stream=False,
        trace=head.trace,
    )
    lifeline = Lifeline()
    held = HeldBytes(gateway.bytes_in_flight)
    watcher: asyncio.Task[None] | None = None

    async def load() -> Members:
        nonlocal watcher
        try:
            return await read_members(
                head,
                receive,
                limit=limits.max_body_bytes,
                seconds=timeouts.body_seconds,
                ready=link is not None and link.body_ready,
                held=held,
            )
        except ClientLeft:
            lifeline.cut(Cut.CLIENT_GONE)
            # The cancellation arrives at the next wait.
            await asyncio.sleep(0)
            raise
        finally:
            if link is None:
                # Only now: ASGI has one queue for the body and the news that the client left.
                watcher = asyncio.create_task(_watch(receive, gone))

    def gone() -> None:
        # A server also says `disconnect` when an answer is complete.
        if not reply.ended:
            lifeline.cut(Cut.CLIENT_GONE)

    if link is not None:
        link.on_lost = gone
    try:
        await gateway.answer(record, load, head.steering, reply, lifeline)
    finally:
        held.release()
        # It holds the connection's cycle, which holds the scope.
        extensions.pop(PIECES, None)
        # The connection's next request may have begun, and put itself there.
        if link is not None and link.on_lost is gone:
            link.on_lost = None
        if watcher is not None:
            watcher.cancel()


async def _watch(receive: Receive, gone: Callable[[], None]) -> None:
    """Wait for the client to leave, under a server that has no `Link`."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone()
