"""Adds what an answer cost to the `usage` of its JSON, leaving every other byte's meaning alone."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from backends.sse import UNREADABLE, TokenUsage

UsageImpact = Callable[[TokenUsage], dict[str, Any]]
"""Makes the members that `usage` gets, from the tokens in it."""

_members = msgspec.json.Decoder(dict[str, Raw])


def add_usage_impact(body: bytes, usage: TokenUsage | None, impact: UsageImpact | None) -> bytes:
    """Return the answer with the members of `impact` in its `usage`.

    As it came where no impact is asked for, it has no usage, or it cannot be read.
    """
    if impact is None or usage is None:
        return body
    try:
        answer = _members.decode(body)
        members: dict[str, Any] = {**_members.decode(answer["usage"])}
    except (*UNREADABLE, KeyError):
        return body
    members.update(impact(usage))
    return msgspec.json.encode({**answer, "usage": members})
