"""A shared secret in the Authorization header: what is sent, and whether what came is right."""

import hmac
import json
from collections.abc import Mapping
from typing import Final

_LEAST_SECRET: Final = 8
"""Characters; one so short that it may be a word is no secret."""


def build_bearer(secret: str) -> str:
    """Return the header's value."""
    return f"Bearer {secret}"


def is_bearer_of(given: str | None, secret: str) -> bool:
    """Whether a header's value (None: not sent) carries the secret; in constant time."""
    sent = (given or "").encode("utf-8", "surrogateescape")
    return hmac.compare_digest(sent, build_bearer(secret).encode())


def hide_bearer(said: bytes, headers: Mapping[str, str]) -> bytes:
    """Return what a server said without the secret that it is sent: some repeat a whole request."""
    secret = headers.get("Authorization", "").removeprefix(build_bearer(""))
    if len(secret) >= _LEAST_SECRET:
        for written in (secret, json.dumps(secret)[1:-1]):
            said = said.replace(written.encode(), b"[key]")
    return said
