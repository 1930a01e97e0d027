"""A whole answer on its way to the client: renamed, with its impact, explained."""

from http import HTTPStatus

from gateway.service.client.api_error import Header
from gateway.service.client.response import JSON, ResponseWriter
from gateway.service.upstream.relay import Explain, add_explanation, find_renamer
from gateway.service.upstream.upstream_response import UpstreamResponse
from gateway.service.upstream.usage_impact import add_usage_impact

_OK = HTTPStatus.OK.value


async def send_unary_answer(
    opened: UpstreamResponse,
    reply: ResponseWriter,
    head: list[Header],
    explain: Explain | None,
) -> None:
    """Send a unary answer, renamed and explained."""
    body = opened.body
    if opened.unary is not None:
        rename = find_renamer(opened.unary.model, opened.deployment.model)
        body = body if rename is None else rename(body)
        body = add_usage_impact(body, opened.unary.usage, opened.impact)
    if explain is not None:
        body = add_explanation(body, explain())
    await reply.send_unary(_OK, body, head, _find_content_type(opened))


def _find_content_type(opened: UpstreamResponse) -> Header:
    """Return what an answer is: JSON, but for the few that a named endpoint says are not."""
    told = opened.content_type
    if told is None or told.startswith("application/json"):
        return JSON
    return (b"content-type", told.encode("latin-1"))
