"""How a simulated server leaves: it refuses what is new and finishes what runs.

As the chart has a vLLM server leave: 503 with `Retry-After`, so that a gateway asks another.
"""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from aiohttp import web

from backends.simulator.handlers import RequestHandler, json_response
from backends.simulator.protocol import error_body

_RETRY_AFTER_SECONDS: Final = 5


class DrainGate:
    """Counts the requests that run, and lets no more in once it is shut."""

    def __init__(self) -> None:
        self._running = 0
        self._is_shut = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def answer(self, request: web.Request, handler: RequestHandler) -> web.StreamResponse:
        """Let the handler answer, or refuse; only /v1 is work."""
        if not request.path.startswith("/v1/"):
            return await handler(request)
        if self._is_shut:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            text = error_body(status, "the server is shutting down", "ServiceUnavailableError")
            refusal = json_response(text, status)
            refusal.headers["retry-after"] = str(_RETRY_AFTER_SECONDS)
            refusal.force_close()
            return refusal
        self._running += 1
        self._idle.clear()
        try:
            return await handler(request)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Let nothing in from now on, and wait for what runs, but no longer than `seconds`."""
        self._is_shut = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
