"""Reading a body of OpenAI's Responses API: what its items hold, in text, and what they need.

`input` is a text, or a list of items: messages, calls of tools and their results, reasoning. What
a conversation holds beyond that (`previous_response_id`) only the backend that made it knows.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from backends.sse import ABSENT, UNREADABLE
from gateway.scheduling.features import RequestFeatures
from gateway.service.request.application import describe_application, is_system
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.loose_values import read_value
from gateway.service.request.members import Members, decode_text, member_asks
from gateway.service.request.typed_conversation import TypedConversation, read_limit
from gateway.tokens import TokenCounter

PREVIOUS_MEMBER: Final = "previous_response_id"
_MESSAGE: Final = "message"
_CALL: Final = "_call"
_RESULT: Final = "_call_output"
_LOGPROBS: Final = b"message.output_text.logprobs"


class _Item(Struct):
    type: Any = _MESSAGE
    role: Any = ""
    content: Raw = ABSENT
    name: Any = ""
    arguments: Raw = ABSENT
    output: Raw = ABSENT


_items = msgspec.json.Decoder(list[_Item])


def extract_responses_features(ask: InferenceRequest, counter: TokenCounter) -> RequestFeatures:
    """Count the prompt's tokens and find what capabilities it needs."""
    members = ask.members
    told = TypedConversation()
    if member_asks(members, "instructions"):
        told.add_message("system", members["instructions"], system=True)
    raw = members.get("input", ABSENT)
    if bytes(raw).lstrip().startswith(b"["):
        _read_items(raw, told)
    else:
        told.add_message("user", raw)
    if member_asks(members, "tools"):
        told.texts.append(bytes(members["tools"]).decode())
        if read_value(members.get("tool_choice")) != "none":
            told.needs.add("tools")
    included = bytes(members.get("include", b""))
    if member_asks(members, "top_logprobs", unless=b"0") or _LOGPROBS in included:
        told.needs.add("logprobs")
    told.describe(ask, describe_application(members, told.system, "text"))
    return told.measure(ask, counter, read_limit(members, "max_output_tokens"))


def read_previous_id(members: Members) -> str | None:
    """Return the id of the response that a request goes on from. Raises BadRequest."""
    return decode_text(members, PREVIOUS_MEMBER) or None


def _read_items(raw: Raw, told: TypedConversation) -> None:
    try:
        items = _items.decode(raw)
    except UNREADABLE:
        told.add_unread(raw)
        return
    for item in items:
        kind = item.type if isinstance(item.type, str) else ""
        if kind == _MESSAGE:
            told.add_message(item.role, item.content, system=is_system(item.role))
        elif kind.endswith(_RESULT):
            told.add_result(item.output)
        elif kind.endswith(_CALL):
            told.add_call(item.name, item.arguments)
        else:
            told.add_message("", item.content)
