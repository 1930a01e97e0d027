"""`POST /v1/route`: the decision for a request, without the request."""

from http import HTTPStatus
from typing import Any

from litestar import asgi
from litestar.types import HTTPScope, Receive, Scope, Send

from gateway.api.incoming import ClientDisconnected, read_head, read_members
from gateway.config import LimitsConfig, TimeoutsConfig
from gateway.service.client.errors import ApiError
from gateway.service.client.response import ResponseWriter
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.body import parse_request
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.members import Members
from gateway.service.request.plan import no_candidate_error


def make_handler(gateway: RequestPipeline, limits: LimitsConfig, timeouts: TimeoutsConfig) -> Any:
    """Make the route handler."""

    @asgi("/v1/route", name="route", copy_scope=False)
    async def handle_route(scope: Scope, receive: Receive, send: Send) -> None:
        http: HTTPScope = scope  # type: ignore[assignment]
        head = read_head(http)
        reply = ResponseWriter(send, head.request_id)
        try:
            members = await read_members(
                head, receive, limit=limits.max_body_bytes, seconds=timeouts.body_seconds
            )
            ask = parse_request(_detect_kind(members), members)
            made = gateway.plan_request(ask, head.steering)
            if made.steering.reject and not made.decision.feasible:
                raise no_candidate_error(made.decision, made.ask.kind.prompt_member)
            await reply.send_unary(HTTPStatus.OK.value, made.explain_decision(head.request_id))
        except ClientDisconnected:
            return
        except ApiError as error:
            await reply.send_error(error)

    return handle_route


def _detect_kind(members: Members) -> EndpointKind:
    """Tell from its members which endpoint a body is meant for; chat where nothing tells."""
    if "messages" in members:
        return EndpointKind.CHAT if _MESSAGES_OWN.isdisjoint(members) else EndpointKind.MESSAGES
    if "input" in members:
        embeds = _RESPONSES_OWN.isdisjoint(members)
        return EndpointKind.EMBEDDINGS if embeds else EndpointKind.RESPONSES
    return EndpointKind.COMPLETIONS if "prompt" in members else EndpointKind.CHAT


_MESSAGES_OWN = frozenset({"system", "stop_sequences", "thinking"})
_RESPONSES_OWN = frozenset(
    {"instructions", "max_output_tokens", "previous_response_id", "reasoning", "text", "tools"}
)
