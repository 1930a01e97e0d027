"""Whether a client reads: what writes to it waits here while it does not."""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl


class ClientFlow(FlowControl):
    """uvicorn's, but that what waits for the client is made when somebody does.

    An event's queue takes each connection 0.7 kB, and hardly any client stops reading.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = False
        self.write_paused = False
        self._drained: asyncio.Event | None = None

    async def drain(self) -> None:
        """Wait until the client reads."""
        if self.write_paused:
            if self._drained is None:
                self._drained = asyncio.Event()
            await self._drained.wait()

    def pause_writing(self) -> None:
        """Note that the client's side is full."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """Note that it is not any more."""
        self.write_paused = False
        if self._drained is not None:
            self._drained.set()
            self._drained = None
