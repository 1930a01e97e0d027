"""A conversation: its tokens, what it needs, and what its user said last.

Rules: it is read as leniently as vLLM reads it, and more so: what is no text, picture, sound or
tool call counts as nothing and is passed on. A part without a type is what its members say, as at
vLLM. A long text is decoded at both ends and where its count looks, unless it is the application's.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from backends.sse import ABSENT, UNREADABLE
from gateway.cut_text import LEAST_BYTES, cut_text, join_texts, read_text
from gateway.service.request.application import describe_application, is_system
from gateway.service.request.conversation_prefix import ConversationTexts
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.members import (
    ANSWER_TOKENS,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    UNREAD,
    PromptSize,
    asks_for,
    is_media,
    member_asks,
)
from gateway.tokens import TokenCounter

_TOOL_ROLES: Final = frozenset({"tool", "function"})


class _ContentPart(Struct):
    """A part's texts, and the members that tell what an untyped one is."""

    type: Any = None
    text: Raw = ABSENT
    refusal: Any = None
    thinking: Any = None
    uuid: Any = None
    image_url: Raw = ABSENT
    image_pil: Raw = ABSENT
    image_embeds: Raw = ABSENT
    audio_url: Raw = ABSENT
    audio_embeds: Raw = ABSENT
    input_audio: Raw = ABSENT
    video_url: Raw = ABSENT
    video_embeds: Raw = ABSENT

    def find_text(self, *, cuts: bool) -> str:
        """Return its text, "" where it has none; of a long one, where it `cuts`, both ends."""
        for text in (read_text(self.text, cuts=cuts), self.refusal, self.thinking):
            if isinstance(text, str) and text:
                return text
        return ""

    def find_media(self) -> str:
        """Return what says that it is no text: its type, else a member; "" where it is text."""
        if isinstance(self.type, str) and self.uuid is None:
            return self.type if is_media(self.type) else ""
        return next((name for name in _MEDIA_MEMBERS if bytes(getattr(self, name))), "")


_MEDIA_MEMBERS: Final = _ContentPart.__struct_fields__[5:]
# One object-like type a union: what is neither is read all the same, and counts as nothing.
_Part = _ContentPart | str | float | bool | list[Raw] | None


_Content = str | list[_Part] | dict[str, Raw] | float | bool | None


class _ChatMessage(Struct):
    role: Any = None
    content: _Content = None
    tool_calls: Raw = ABSENT
    function_call: Raw = ABSENT

    @property
    def holds_tools(self) -> bool:
        """Whether it calls a tool, or is the result of one."""
        if self.role == "user" and self.tool_calls is self.function_call is ABSENT:
            return False  # nearly all messages
        is_result = isinstance(self.role, str) and self.role in _TOOL_ROLES
        return is_result or bool(self.find_calls())

    def find_calls(self) -> str:
        """Return its tool calls as they stand, "" where it has none."""
        for raw in (self.tool_calls, self.function_call):
            if raw is not ABSENT and asks_for(raw):
                return bytes(raw).decode()
        return ""


class _LongMessage(Struct):
    """One of many bytes, whose content is not decoded yet."""

    role: Any = None
    content: Raw = ABSENT
    tool_calls: Raw = ABSENT
    function_call: Raw = ABSENT

    def read(self) -> _ChatMessage:
        """Decode it, long texts cut. Raises what UNREADABLE lists."""
        content: _Content = None
        if self.content is not ABSENT:
            content = None if is_system(self.role) else cut_text(self.content)
            content = _content.decode(self.content) if content is None else content
        return _ChatMessage(self.role, content, self.tool_calls, self.function_call)


_messages = msgspec.json.Decoder(list[_ChatMessage | str | float | bool | list[Raw] | None])
_long_messages = msgspec.json.Decoder(list[_LongMessage | str | float | bool | list[Raw] | None])
_content = msgspec.json.Decoder(_Content)


def measure_conversation(ask: InferenceRequest, counter: TokenCounter) -> PromptSize:
    """Count `messages` and the tools; note the application, the user's words and media in `ask`."""
    members = ask.members
    texts: list[str] = []
    media: list[str] = []
    system: list[str] = []
    needs: set[str] = set()
    ends: list[int] = []
    said: list[str] = []
    leading = 0
    messages = _decode_messages(members.get("messages"))
    for message in messages:
        first = len(texts)
        content = message.content
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            _read_parts(content, texts, media, cuts=not is_system(message.role))
        if message.holds_tools:
            needs.add("tools")
            texts.append(message.find_calls())
        if is_system(message.role):
            leading += len(texts) - first if leading == first else 0
            system += texts[first:]
        elif message.role == "user":
            said.append(join_texts(texts[first:]))
        ends.append(len(texts))
    if member_asks(members, "tools"):
        texts.append(bytes(members["tools"]).decode())
    if said:
        ask.words = said.pop()
        ask.earlier = said
    ask.system = system[0] if len(system) == 1 else "\n".join(system)
    ask.application = describe_application(members, ask.system)
    ask.has_media = bool(media)
    ask.texts = ConversationTexts(texts, ends, leading)
    if not messages:
        return UNREAD
    # What the application always sends stands first, and is counted once.
    counted = counter.measure_texts(texts, leading)
    overhead = MESSAGE_TOKENS * len(messages) + ANSWER_TOKENS + IMAGE_TOKENS * len(media)
    needs.update("audio" if "audio" in kind else "images" for kind in media)
    return PromptSize(counted.tokens + overhead, tuple(needs), counted.dense_chars)


def _decode_messages(raw: Raw | None) -> list[_ChatMessage]:
    """Return the messages that are objects; none where they cannot be read."""
    if raw is None:
        return []
    try:
        if len(memoryview(raw)) < LEAST_BYTES:
            found = _messages.decode(raw)
            return [message for message in found if isinstance(message, _ChatMessage)]
        long = _long_messages.decode(raw)
        return [message.read() for message in long if isinstance(message, _LongMessage)]
    except UNREADABLE:
        return []


def _read_parts(parts: list[_Part], texts: list[str], media: list[str], *, cuts: bool) -> None:
    """Add a content list's texts to `texts` and the kinds of its media to `media`."""
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, _ContentPart):
            texts.append(part.find_text(cuts=cuts))
            kind = part.find_media()
            if kind:
                media.append(kind)
