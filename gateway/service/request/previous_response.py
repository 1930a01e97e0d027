"""Requests that go on from a response: they stay with the model and the backend that made it."""

from collections.abc import Sequence

from gateway.scheduling.decision import ScoredCandidate
from gateway.service.client.errors import ModelNotAllowed, UnknownResponse
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.response_ids import ResponseIds
from gateway.service.request.responses_body import PREVIOUS_MEMBER, read_previous_id
from gateway.service.request.routing_table import RequestTarget


def pin_to_previous(
    ask: InferenceRequest, target: RequestTarget, ids: ResponseIds
) -> RequestTarget:
    """Return the target with the model that a request has to stay with; note its backend in `ask`.

    Raises BadRequest, and UnknownResponse where nobody here made the response, its backend has
    left, or the request names another model.
    """
    previous = read_previous_id(ask.members)
    if previous is None:
        return target
    tenant = None if ask.caller is None else ask.caller.tenant
    place = ids.find_place(previous, PREVIOUS_MEMBER, tenant)
    model = place.deployment.model
    if target.model not in {None, model}:
        raise UnknownResponse(
            f"{previous!r} was made by {model!r}, and {target.model!r} cannot go on from it",
            param=PREVIOUS_MEMBER,
        )
    if target.allowed is not None and model not in target.allowed:
        raise ModelNotAllowed(f"this API key may not use {model!r}, which made {previous!r}")
    ask.place = place
    return target._replace(model=model)


def keep_to_place(
    ask: InferenceRequest, candidates: Sequence[ScoredCandidate]
) -> Sequence[ScoredCandidate]:
    """Return the candidates that a request may be served by: all, or the one it is pinned to."""
    if ask.place is None:
        return candidates
    label = ask.place.deployment.label
    return [scored for scored in candidates if scored.deployment == label]
