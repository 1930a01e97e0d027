"""Reading a body of Anthropic's Messages API: what its blocks hold, in text, and what they need."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from backends.sse import ABSENT, UNREADABLE
from gateway.scheduling.features import RequestFeatures
from gateway.service.request.application import describe_application
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.members import member_asks
from gateway.service.request.typed_conversation import TypedConversation, read_limit
from gateway.tokens import TokenCounter


class _Message(Struct):
    role: Any = ""
    content: Raw = ABSENT


class _ToolChoice(Struct):
    type: Any = None


_messages = msgspec.json.Decoder(list[_Message])
_tool_choice = msgspec.json.Decoder(_ToolChoice)


def extract_messages_features(ask: InferenceRequest, counter: TokenCounter) -> RequestFeatures:
    """Count the prompt's tokens and find what capabilities it needs."""
    members = ask.members
    told = TypedConversation()
    if member_asks(members, "system"):
        told.add_message("system", members["system"], system=True)
    raw = members.get("messages", Raw(b"[]"))
    try:
        for message in _messages.decode(raw):
            told.add_message(message.role, message.content, system=message.role == "system")
    except UNREADABLE:
        told.add_unread(raw)
    if member_asks(members, "tools"):
        told.texts.append(bytes(members["tools"]).decode())
        if not _forbids_calls(members.get("tool_choice")):
            told.needs.add("tools")
    told.describe(ask, describe_application(members, told.system, "output_config"))
    return told.measure(ask, counter, read_limit(members, "max_tokens"))


def _forbids_calls(choice: Raw | None) -> bool:
    """Tell whether the answer may call none of the tools: `{"type": "none"}`."""
    if choice is None:
        return False
    try:
        return bool(_tool_choice.decode(choice).type == "none")
    except UNREADABLE:
        return False
