"""Requests to a model by its name: what they ask of whom, and the little that is read of them."""

from typing import Final

from gateway.scheduling.features import RequestFeatures
from gateway.service.client.errors import BadRequest
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.members import Members
from gateway.service.request.named_endpoints import NamedEndpoint
from gateway.service.request.routing_table import ModelNames, RequestTarget

_BYTES_PER_TOKEN: Final = 4


def make_named_request(
    endpoint: NamedEndpoint, members: Members, model: str | None, names: ModelNames, *, stream: bool
) -> InferenceRequest:
    """Return a request; who names no model means the only one, or the config's `default_model`.

    lm-eval's remote tokeniser names none. Raises BadRequest where neither is a concrete model.
    """
    if not model:
        model = names.models[0] if len(names.models) == 1 else names.resolve_name("").model
    if model is None:
        raise BadRequest(
            f"you must name a model, one of {', '.join(names.models)}"
            f"{'' if endpoint.method == 'POST' else ': ?model=NAME'}; "
            "a client that cannot gets default_model of the gateway's config, if that is one",
            param="model",
        )
    return InferenceRequest(endpoint, members, model, stream, wants_usage=True)


def check_named_target(target: RequestTarget) -> None:
    """Raise BadRequest where nobody was named: such requests are not routed."""
    if target.model is None:
        raise BadRequest(
            f"{target.label!r} chooses for text that is to be generated; name a model here",
            param="model",
        )


def estimate_named_features(ask: InferenceRequest) -> RequestFeatures:
    """Return what is known of such a request's size: about a token for four bytes."""
    size = sum(len(bytes(raw)) for raw in ask.members.values())
    return RequestFeatures(max(1, size // _BYTES_PER_TOKEN), 1, frozenset(), lenient=True)
