"""The three inference endpoints: one ASGI handler, told which kind it serves."""

import asyncio
import time
from typing import Any

from litestar import asgi
from litestar.types import HTTPScope, Receive, Scope, Send

from gateway.api.incoming import ClientLeft, read_head, read_members
from gateway.config import LimitsConfig, TimeoutsConfig
from gateway.service.ask import Kind, Members
from gateway.service.candidates import OTHER
from gateway.service.gateway import Gateway
from gateway.service.lifeline import Cut, Lifeline
from gateway.service.reply import Reply
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
    reply = Reply(send, head.request_id)
    record = Record(
        id=head.request_id,
        at=time.time(),
        kind=kind.value,
        requested=OTHER,
        preset="none",
        stream=False,
    )
    lifeline = Lifeline()
    watcher: asyncio.Task[None] | None = None

    async def load() -> Members:
        nonlocal watcher
        try:
            return await read_members(
                head, receive, limit=limits.max_body_bytes, seconds=timeouts.body_seconds
            )
        except ClientLeft:
            lifeline.cut(Cut.CLIENT_GONE)
            # The cancellation arrives at the next wait.
            await asyncio.sleep(0)
            raise
        finally:
            # Only now: ASGI has one queue for the body and for the news that the client left.
            watcher = asyncio.create_task(_watch(receive, reply, lifeline))

    try:
        await gateway.answer(record, load, head.steering, reply, lifeline)
    finally:
        if watcher is not None:
            watcher.cancel()


async def _watch(receive: Receive, reply: Reply, lifeline: Lifeline) -> None:
    """Cut the request off once its client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    # The server also says `disconnect` when an answer is complete.
    if not reply.ended:
        lifeline.cut(Cut.CLIENT_GONE)
