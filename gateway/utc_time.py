"""Times as people and files read them: ISO 8601, in UTC, to the second."""

from datetime import UTC, datetime

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def format_time(at_seconds: float) -> str:
    """Return a Unix time as text. Raises OverflowError, OSError or ValueError far out of range."""
    return datetime.fromtimestamp(at_seconds, UTC).strftime(_FORMAT)


def format_now() -> str:
    """Return this second as text."""
    return datetime.now(UTC).strftime(_FORMAT)
