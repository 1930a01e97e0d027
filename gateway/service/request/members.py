"""The members of a body: raw, and looked into one by one; whatever is wrong is a BadRequest."""

from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from gateway.service.client.errors import BadRequest

Members = dict[str, Raw]

IMAGE_TOKENS = 576
"""Fixed cost of an image: 24 x 24 patches, as LLaVA-like models use."""
MESSAGE_TOKENS = 4
ANSWER_TOKENS = 3
"""What a chat template adds around each message, and before the answer (OpenAI's figures)."""

_MOST_DIGITS = 10
_limit = msgspec.json.Decoder(int | float | None)
# A member that is absent, null, false or empty asks for nothing.
_NOTHING = frozenset({b"null", b"false", b"[]"})


class PromptSize(NamedTuple):
    """What was counted; of several prompts the longest has the share `longest`."""

    tokens: int
    needs: tuple[str, ...] = ()
    dense_chars: int = 0
    prompts: int = 1
    longest: float = 1.0
    words: str = ""
    exact: bool = False


def decode_member(members: Members, name: str, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Decode one member; None where it is absent. Raises BadRequest."""
    if name not in members:
        return None
    try:
        return decoder.decode(members[name])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise make_member_error(name, error) from None


def member_asks(members: Members, name: str, *, unless: bytes = b"null") -> bool:
    """Tell whether a member is there and asks for something; `unless` is one more nothing."""
    raw = members.get(name)
    if raw is None:
        return False
    value = bytes(raw).translate(None, b" \t\r\n")
    return value not in _NOTHING and value != unless


def read_count(members: Members, name: str) -> int | None:
    """Return a whole number of 1 or more, None where there is none: vLLM says what is wrong."""
    raw = members.get(name)
    if raw is None:
        return None
    text = bytes(raw)
    return (int(text) or None) if text.isdigit() and len(text) < _MOST_DIGITS else None


def read_token_limit(members: Members, name: str) -> int | None:
    """Return the most new tokens that a member asks for. Raises BadRequest."""
    asked = decode_member(members, name, _limit)
    if asked is None:
        return None
    # vLLM takes 100.0 for 100, as pydantic does.
    if asked < 1:
        raise BadRequest(f"{name}: must be at least 1", param=name)
    if asked != asked // 1:
        raise BadRequest(f"{name}: must be a whole number", param=name)
    return int(asked)


def is_media(kind: str) -> bool:
    """Tell whether a content part of this type holds a picture, a film or sound."""
    return "image" in kind or "video" in kind or "audio" in kind


def make_member_error(name: str, error: Exception) -> BadRequest:
    """Return the error for a member that cannot be decoded."""
    text = str(error).replace("`$", f"`{name}")
    return BadRequest(f"{name}: {text}", param=name)
