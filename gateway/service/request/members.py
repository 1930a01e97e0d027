"""The members of a body: raw, and looked into one by one; whatever is wrong is a BadRequest."""

from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from backends.sse import UNREADABLE
from gateway.service.client.errors import BadRequest

Members = dict[str, Raw]

IMAGE_TOKENS = 576
"""Fixed cost of an image: 24 x 24 patches, as LLaVA-like models use."""
MESSAGE_TOKENS = 4
ANSWER_TOKENS = 3
"""What a chat template adds around each message, and before the answer (OpenAI's figures)."""

_optional_text = msgspec.json.Decoder(str | None)
# A member that is absent, null, false or empty asks for nothing.
_NOTHING = frozenset({b"null", b"false", b"[]"})


class PromptSize(NamedTuple):
    """What was counted; of several prompts the longest has the share `longest`.

    `needs` are capabilities beyond the endpoint's own. With `exact` the prompt came as the model's
    own tokens, so that no scale applies; with `sampled` the number of prompts is an estimate.
    """

    tokens: int
    needs: tuple[str, ...] = ()
    dense_chars: int = 0
    prompts: int = 1
    longest: float = 1.0
    exact: bool = False
    sampled: bool = False


UNREAD = PromptSize(0)
"""A prompt that cannot be read counts as nothing: vLLM says what is wrong with it."""


def decode_member(members: Members, name: str, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Decode one member; None where it is absent. Raises BadRequest."""
    if name not in members:
        return None
    try:
        return decoder.decode(members[name])
    except UNREADABLE as error:
        text = str(error).replace("`$", f"`{name}")
        raise BadRequest(f"{name}: {text}", param=name) from None


def decode_text(members: Members, name: str) -> str | None:
    """Decode a member that is a text or null; None where it is absent. Raises BadRequest."""
    found: str | None = decode_member(members, name, _optional_text)
    return found


def member_asks(members: Members, name: str, *, unless: bytes = b"null") -> bool:
    """Tell whether a member is there and asks for something; `unless` is one more nothing."""
    raw = members.get(name)
    return raw is not None and asks_for(raw, unless=unless)


def asks_for(raw: Raw, *, unless: bytes = b"null") -> bool:
    """Tell whether a member that is there asks for something."""
    value = bytes(raw).translate(None, b" \t\r\n")
    return value not in _NOTHING and value != unless


def is_media(kind: str) -> bool:
    """Tell whether a content part of this type holds a picture, a film or sound."""
    return "image" in kind or "video" in kind or "audio" in kind
