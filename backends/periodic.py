"""Background work that must not end: one turn after another, whatever a turn raises."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger("joulegate")


async def run_periodically(
    turn: Callable[[], Awaitable[None] | None], seconds: float, what: str
) -> None:
    """Take a turn every so many seconds until cancelled; a bug in one is logged, as in `what`."""
    while True:
        try:
            taken = turn()
            if taken is not None:
                await taken
        except Exception:  # noqa: BLE001 - nobody would begin this loop again
            _log.exception("a bug in %s", what)
        await asyncio.sleep(seconds)
