"""How bytes leave the server: properly, or with a fault. The only place that touches transports."""

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextvars import ContextVar

from aiohttp import web

from backends.simulator import chunks
from backends.simulator.faults import ActiveFault, FaultInjector
from backends.simulator.protocol import error_body

SSE_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "x-simulated": "true"}
# A reset discards what the peer has not read yet; give it time to read the part it shall get.
_BEFORE_RESET_SECONDS = 0.05
_RST_ON_CLOSE = struct.pack("ii", 1, 0)
STRUCK_FAULTS: ContextVar[Sequence[tuple[str, ActiveFault]]] = ContextVar("struck", default=())
"""The faults that strike the request in hand, set around its handler."""


class ConnectionCutError(Exception):
    """The connection was cut on purpose; there is nothing more to say on it."""


def reset_connection(request: web.Request) -> None:
    """Reset a connection (RST rather than FIN)."""
    transport = request.transport
    if transport is None:
        return
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    transport.abort()


async def wait_forever() -> None:
    """Say nothing until the client leaves or the server stops (either cancels the handler)."""
    await asyncio.get_running_loop().create_future()


class SimulatedStream:
    """One stream to one client."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.response = web.StreamResponse(headers=SSE_HEADERS)

    async def open(self) -> None:
        """Send the headers."""
        await self.response.prepare(self.request)

    async def write_role(self, frames: list[bytes]) -> None:
        """Send the role-only chunks."""
        await self.write(b"".join(frames))

    async def write_content(self, frames: list[bytes]) -> None:
        """Send chunks that carry content."""
        await self.write(b"".join(frames))

    async def write_end(self, frames: list[bytes], last: bytes = chunks.DONE) -> None:
        """Send what comes after the content, `last` at the end, and end the stream."""
        await self.write(b"".join((*frames, last)))
        await self.response.write_eof()

    async def write(self, data: bytes) -> None:
        """Send bytes; waits only while the client is slow to take them."""
        if data:
            await self.response.write(data)


class FaultyStream(SimulatedStream):
    """A stream that ends badly, stalls, or arrives in pieces."""

    def __init__(
        self, request: web.Request, struck: Sequence[tuple[str, ActiveFault]], faults: FaultInjector
    ) -> None:
        super().__init__(request)
        self._faults = dict(struck)
        self._rng = faults.rng
        self._sent = 0
        self._held = b""

    async def open(self) -> None:
        """Send the headers, and perhaps nothing else, ever."""
        await super().open()
        if "silent_after_headers" in self._faults:
            await wait_forever()

    async def write_role(self, frames: list[bytes]) -> None:
        """Send the role-only chunks, and perhaps die."""
        await super().write_role(frames)
        if "die_before_content" in self._faults:
            await self._reset_stream()
        await self._apply_faults()

    async def write_content(self, frames: list[bytes]) -> None:
        """Send chunks up to the one that the fault strikes after."""
        for frame in frames:
            await self.write(frame)
            self._sent += 1
            await self._apply_faults()

    async def write_end(self, frames: list[bytes], last: bytes = chunks.DONE) -> None:
        """End the stream, perhaps without saying so."""
        if "no_done" in self._faults:
            await self.write(b"".join(frames))
            await self._flush_held()
            await self.response.write_eof()
            return
        await self.write(b"".join((*frames, last)))
        await self._flush_held()
        await self.response.write_eof()

    async def write(self, data: bytes) -> None:
        """Send bytes, cut anywhere if events are to be split."""
        if "split_events" not in self._faults:
            await super().write(data)
            return
        self._held += data
        if len(self._held) > 1:
            cut = self._rng.randrange(1, len(self._held))
            first, self._held = self._held[:cut], self._held[cut:]
            await self.response.write(first)
            await asyncio.sleep(0.001)  # a packet of its own

    async def _flush_held(self) -> None:
        if self._held:
            await self.response.write(self._held)
            self._held = b""

    async def _apply_faults(self) -> None:
        fault = self._faults.get("die_after")
        if fault is not None and self._sent >= fault.chunks:
            await self._reset_stream()
        fault = self._faults.get("stall_after")
        if fault is not None and self._sent >= fault.chunks:
            await self._flush_held()
            await wait_forever()
        fault = self._faults.get("error_frame_after")
        if fault is not None and self._sent >= fault.chunks:
            body = error_body(500, "Simulated failure of the engine.", "InternalServerError")
            await self.write(b"data: " + body + b"\n\n" + chunks.DONE)
            await self._flush_held()
            await self.response.write_eof()
            raise ConnectionCutError

    async def _reset_stream(self) -> None:
        await self._flush_held()
        await asyncio.sleep(_BEFORE_RESET_SECONDS)
        reset_connection(self.request)
        raise ConnectionCutError


def make_stream(request: web.Request, faults: FaultInjector) -> SimulatedStream:
    """Return the stream that answers a request, with the faults that strike it."""
    struck = STRUCK_FAULTS.get()
    return FaultyStream(request, struck, faults) if struck else SimulatedStream(request)
