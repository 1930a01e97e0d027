"""Periodic background work that survives its own exceptions."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger("joulegate")


async def run_periodically(
    turn: Callable[[], Awaitable[None] | None], seconds: float, what: str
) -> None:
    """Call `turn`, wait `seconds`, and so on until cancelled; log exceptions as a bug in `what`."""
    while True:
        try:
            taken = turn()
            if taken is not None:
                await taken
        except Exception:  # noqa: BLE001 - nothing restarts this loop
            _log.exception("a bug in %s", what)
        await asyncio.sleep(seconds)
