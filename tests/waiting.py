"""Waiting in an event loop for what others bring about."""

import asyncio
import time


async def until(condition, what="it", seconds=15.0, every_seconds=0.01):
    """Wait for what other tasks bring about; `condition` may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(every_seconds)
