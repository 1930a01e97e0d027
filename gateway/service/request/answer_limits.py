"""Where a body says how many answers of how many tokens it is to get, at each endpoint."""

from typing import Final

import msgspec
from msgspec import Raw

from backends.sse import UNREADABLE
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.members import Members

LIMIT_MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    EndpointKind.CHAT.value: ("max_completion_tokens", "max_tokens"),
    EndpointKind.COMPLETIONS.value: ("max_completion_tokens", "max_tokens"),
    EndpointKind.RESPONSES.value: ("max_output_tokens",),
    EndpointKind.MESSAGES.value: ("max_tokens",),
    "chat_batch": ("max_completion_tokens", "max_tokens"),
    "cohere_chat": ("max_tokens",),
    "generate_tokens": ("max_tokens",),
}
"""The members that limit an answer, by an endpoint's `value`, the one that vLLM prefers first."""
NESTED: Final = {"generate_tokens": "sampling_params"}
"""Where an endpoint has them within a member of its body."""
_members = msgspec.json.Decoder(dict[str, Raw])


def find_limiting(ask: InferenceRequest) -> Members | None:
    """Return the members among which the limits are: the body's, or those of one of its members.

    None where that one cannot be read: it is for vLLM to say so.
    """
    member = NESTED.get(ask.kind.value)
    if member is None:
        return ask.members
    try:
        return _members.decode(ask.members.get(member, b""))
    except UNREADABLE:
        return None
