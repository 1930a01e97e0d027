"""A shared secret in the Authorization header: what is sent, and whether what came is right."""

import hmac


def build_bearer(secret: str) -> str:
    """Return the header's value."""
    return f"Bearer {secret}"


def is_bearer_of(given: str | None, secret: str) -> bool:
    """Whether a header's value (None: not sent) carries the secret; in constant time."""
    sent = (given or "").encode("utf-8", "surrogateescape")
    return hmac.compare_digest(sent, build_bearer(secret).encode())
