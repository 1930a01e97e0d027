"""Requests to a model by its name: what they ask of whom, and the little that is read of them."""

from typing import Final

import msgspec

from backends.sse import UNREADABLE
from gateway.scheduling.features import RequestFeatures
from gateway.service.client.errors import BadRequest
from gateway.service.request.answer_limits import LIMIT_MEMBERS, find_limiting
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.loose_values import read_count
from gateway.service.request.members import Members
from gateway.service.request.named_endpoints import NamedEndpoint
from gateway.service.request.routing_table import ModelNames, RequestTarget
from gateway.service.request.typed_conversation import read_limit

_BYTES_PER_TOKEN: Final = 4
_conversations = msgspec.json.Decoder(list[msgspec.Raw])


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
    """Return what is known of such a request's size: about a token for four bytes.

    Where it gets answers of text they count as a chat's would; all else makes a token of output.
    """
    size = sum(len(bytes(raw)) for raw in ask.members.values())
    tokens_in = max(1, size // _BYTES_PER_TOKEN)
    names = LIMIT_MEMBERS.get(ask.kind.value)
    if names is None:
        return RequestFeatures(tokens_in, 1, lenient=True)
    limiting = find_limiting(ask) or {}
    asked = (limit for name in names if (limit := read_limit(limiting, name)) is not None)
    return RequestFeatures(
        tokens_in,
        next(asked, None),
        lenient=True,
        answers=max(1, read_count(limiting.get("n")) or 1),
        prompts=_count_conversations(ask) if ask.kind.value == "chat_batch" else 1,
    )


def _count_conversations(ask: InferenceRequest) -> int:
    try:
        return max(1, len(_conversations.decode(ask.members.get("messages", b""))))
    except UNREADABLE:
        return 1
