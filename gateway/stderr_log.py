"""How a process logs: lines on stderr, from `--log-level` on."""

import logging

LEVELS = ("debug", "info", "warning", "error")
"""What --log-level takes."""


def log_to_stderr(level: str) -> None:
    """Log one line an event."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
