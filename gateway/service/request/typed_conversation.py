"""What Responses and Messages have in common: a conversation of typed parts, read for its text.

Rules: it is read as leniently as vLLM reads it, and more so: what cannot be read is counted as it
stands and passed on, and a part that is not known counts nothing.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from backends.sse import ABSENT, UNREADABLE
from gateway.cut_text import cut_text, join_texts, read_text
from gateway.scheduling.features import RequestFeatures
from gateway.service.request.conversation_prefix import ConversationTexts
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.loose_values import read_count
from gateway.service.request.members import (
    ANSWER_TOKENS,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    Members,
    is_media,
)
from gateway.tokens import TokenCounter

_CALL_TYPES: Final = frozenset({"tool_use", "tool_result"})


class _Part(Struct):
    type: Any = None
    text: Raw = ABSENT
    refusal: Any = None
    thinking: Any = None
    input: Raw = ABSENT
    content: Raw = ABSENT


_content = msgspec.json.Decoder(str | list[_Part | str | None] | None)


class TypedConversation:
    """The texts of a request, what they need of a model, and what its application says."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.needs: set[str] = set()
        self._system: list[str] = []
        self._said: list[str] = []
        self._starts: list[int] = []
        self._leading = 0
        self._media = 0

    @property
    def system(self) -> str:
        """The application's own words."""
        return "\n".join(self._system)

    def add_message(self, role: Any, content: Raw, *, system: bool = False) -> None:
        """Add a message's content: a text, or parts."""
        first = self._begin_message()
        self._read_content(content, cuts=not system)
        added = self.texts[first:]
        if system:
            self._system += added
            self._leading += len(added) if self._leading == first else 0
        elif role == "user" and added:
            self._said.append(join_texts(added))

    def add_call(self, name: Any, arguments: Raw) -> None:
        """Add the call of a tool."""
        self._begin_message()
        self.needs.add("tools")
        self.texts += [str(name), bytes(arguments).decode()]

    def add_result(self, output: Raw) -> None:
        """Add a tool's result."""
        self._begin_message()
        self.needs.add("tools")
        self._read_content(output)

    def add_unread(self, raw: Raw) -> None:
        """Add what cannot be read: its JSON bounds it from above."""
        self._begin_message()
        self.texts.append(bytes(raw).decode())

    def _begin_message(self) -> int:
        """Return the number of its first text."""
        first = len(self.texts)
        self._starts.append(first)
        return first

    def _read_content(self, content: Raw, *, cuts: bool = True) -> None:
        if content is ABSENT:
            return
        try:
            parts = (cut_text(content) if cuts else None) or _content.decode(content)
        except UNREADABLE:
            self.texts.append(bytes(content).decode())
            return
        if isinstance(parts, str):
            self.texts.append(parts)
            return
        for part in parts or ():
            if isinstance(part, str):
                self.texts.append(part)
            elif part is not None:
                self._read_part(part, cuts=cuts)

    def _read_part(self, part: _Part, *, cuts: bool) -> None:
        found = (read_text(part.text, cuts=cuts), part.refusal, part.thinking)
        self.texts += [text for text in found if isinstance(text, str) and text]
        kind = part.type if isinstance(part.type, str) else ""
        if is_media(kind):
            self._media += 1
            self.needs.add("audio" if "audio" in kind else "images")
        if kind in _CALL_TYPES:
            self.needs.add("tools")
            self.texts.append(bytes(part.input).decode())
            self._read_content(part.content)

    def describe(self, ask: InferenceRequest, application: str) -> None:
        """Note in a request what else is told of it."""
        ask.application = application
        ask.system = self.system
        *ask.earlier, ask.words = self._said or [""]
        ask.has_media = bool(self._media)
        ask.texts = ConversationTexts(
            self.texts, [*self._starts[1:], len(self.texts)], self._leading
        )

    def measure(
        self, ask: InferenceRequest, counter: TokenCounter, asked_tokens_out: int | None
    ) -> RequestFeatures:
        """Count it all."""
        counted = counter.measure_texts(self.texts)
        overhead = MESSAGE_TOKENS * len(self._starts) + ANSWER_TOKENS + IMAGE_TOKENS * self._media
        return RequestFeatures(
            counted.tokens + overhead,
            asked_tokens_out if ask.kind.generates else 1,
            ask.kind.needs.union(self.needs),
            dense_chars=counted.dense_chars,
        )


def read_limit(members: Members, name: str) -> int | None:
    """Return the most new tokens asked for; None where nothing sensible is: vLLM says so."""
    asked = read_count(members.get(name))
    return asked if asked is not None and 1 <= asked < _MOST_TOKENS else None


_MOST_TOKENS: Final = 1_000_000_000
