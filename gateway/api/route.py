"""`POST /v1/route`: the decision for a request, without the request."""

from typing import Any

from litestar import asgi
from litestar.types import HTTPScope, Receive, Scope, Send

from gateway.api.incoming import ClientLeft, read_head, read_members
from gateway.config import LimitsConfig, TimeoutsConfig
from gateway.service.client.errors import ApiError
from gateway.service.client.response import Reply
from gateway.service.pipeline import Gateway
from gateway.service.request.body import Kind, Members, read
from gateway.service.request.plan import nobody


def handler(gateway: Gateway, limits: LimitsConfig, timeouts: TimeoutsConfig) -> Any:
    """Make the route handler."""

    @asgi("/v1/route", name="route", copy_scope=False)
    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        http: HTTPScope = scope  # type: ignore[assignment]
        head = read_head(http)
        reply = Reply(send, head.request_id)
        try:
            members = await read_members(
                head, receive, limit=limits.max_body_bytes, seconds=timeouts.body_seconds
            )
            ask = read(_kind(members), members)
            made = gateway.plan(ask, head.steering)
            if made.wishes.reject and not made.decision.feasible:
                raise nobody(made.decision, made.ask.kind.prompt)
            await reply.whole(200, made.explain(head.request_id))
        except ClientLeft:
            return
        except ApiError as error:
            await reply.error(error)

    return route


def _kind(members: Members) -> Kind:
    """Tell from its members which endpoint a body is meant for; chat where nothing tells."""
    if "messages" in members:
        return Kind.CHAT
    if "prompt" in members:
        return Kind.COMPLETIONS
    return Kind.EMBEDDINGS if "input" in members else Kind.CHAT
