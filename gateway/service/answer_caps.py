"""The caps on what a request may ask to be generated: answers, and the tokens of one.

They hold wherever a body can say either, at endpoints that go by a model's name too; where no limit
is asked for, the cap is set.
"""

from typing import Final

import msgspec
from msgspec import Raw

from backends.sse import UNREADABLE
from gateway.config import LimitsConfig
from gateway.service.client.errors import BadRequest
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.loose_values import read_count
from gateway.service.request.members import Members

_LIMIT_MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    EndpointKind.CHAT.value: ("max_completion_tokens", "max_tokens"),
    EndpointKind.COMPLETIONS.value: ("max_completion_tokens", "max_tokens"),
    EndpointKind.RESPONSES.value: ("max_output_tokens",),
    EndpointKind.MESSAGES.value: ("max_tokens",),
    "chat_batch": ("max_completion_tokens", "max_tokens"),
    "cohere_chat": ("max_tokens",),
    "generate_tokens": ("max_tokens",),
}
"""The members that limit an answer, by an endpoint's `value`; the first is set where none is."""
_NESTED: Final = {"generate_tokens": "sampling_params"}
"""Where an endpoint has them within a member of its body."""
_CHOICES: Final = ("n", "best_of")
_members = msgspec.json.Decoder(dict[str, Raw])


def hold_to_caps(ask: InferenceRequest, limits: LimitsConfig) -> None:
    """Hold a request to the caps on its answers and their tokens. Raises BadRequest."""
    kind = ask.kind.value
    names, member = _LIMIT_MEMBERS.get(kind, ()), _NESTED.get(kind)
    if member is None:
        _hold_members(ask.members, names, limits, "")
        return
    try:
        nested = _members.decode(ask.members.get(member, b""))
    except UNREADABLE:
        # It is for vLLM to say so.
        return
    _hold_members(nested, names, limits, f"{member}.")
    ask.members[member] = Raw(msgspec.json.encode(nested))


def _hold_members(
    members: Members, names: tuple[str, ...], limits: LimitsConfig, within: str
) -> None:
    most = limits.max_answers
    for name in _CHOICES if most is not None else ():
        asked = read_count(members.get(name))
        if most is not None and asked is not None and asked > most:
            raise BadRequest(f"{within}{name}: at most {most} here", param=f"{within}{name}")
    most = limits.max_output_tokens
    if most is None or not names:
        return
    given = [(name, read_count(members.get(name))) for name in names]
    for name, asked in given:
        if asked is not None and asked > most:
            raise BadRequest(f"{within}{name}: at most {most} tokens here", param=f"{within}{name}")
    if all(asked is None for _, asked in given):
        members[names[0]] = Raw(str(most).encode())
