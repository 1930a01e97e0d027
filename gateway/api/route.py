"""`POST /v1/route`: the decision for a request, without the request."""

from typing import Any

from gateway.api.incoming import RequestHead
from gateway.api.json_endpoint import make_json_handler
from gateway.config import TimeoutsConfig
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.body import parse_request
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.members import Members
from gateway.service.request.plan import no_candidate_error


def make_handler(gateway: RequestPipeline, timeouts: TimeoutsConfig) -> Any:
    """Make the route handler."""

    def explain_route(head: RequestHead, members: Members) -> bytes:
        ask = parse_request(_detect_kind(members), members)
        ask.caller = head.caller
        made = gateway.planner.plan_request(ask, head.steering)
        if made.steering.reject and not made.decision.feasible:
            raise no_candidate_error(made.decision, made.ask.kind.prompt_member)
        return made.explain_decision(head.request_id)

    return make_json_handler("/v1/route", "route", explain_route, gateway, timeouts)


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
