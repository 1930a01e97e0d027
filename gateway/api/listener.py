"""Accepting connections in batches, so that newcomers do not wait behind all running streams.

uvloop accepts one connection in a turn of its loop, and a turn serves every stream that has
something to do: of 1,000 streams begun at once on new connections 400 had their first token only
after others had ended (3 s; measured). Here each turn accepts what waits, up to a bound.
"""

import asyncio
import errno
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any, Final

from gateway.api.serving_tls import HANDSHAKE_SECONDS, start_watching

_log = logging.getLogger("joulegate")

ADMIN_PORT: Final = "JOULEGATE_ADMIN_PORT"
"""Names the operators' port, where there is one; `joulegate serve` sets it."""

ACCEPTED_PER_TURN: Final = 64
_REST_SECONDS: Final = 1.0
"""After running out of descriptors or memory: each further try would fail as well."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class BatchServer:
    """Accepts connections of a listening socket until closed; sets TCP_NODELAY on each.

    It has what uvicorn uses of an asyncio.Server.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: ProtocolFactory,
        listener: socket.socket,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._watching: asyncio.Task[None] | None = None
        self.sockets = (listener,)
        self._loop = loop
        self._factory = factory
        self._listener = listener
        self._begun: set[asyncio.Task[Any]] = set()
        self._rest: asyncio.TimerHandle | None = None
        self._serving = False

    def start(self, backlog: int) -> None:
        """Listen from now on."""
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self._serving = True
        self._loop.add_reader(self._listener, self.accept)
        if self._tls is not None:
            self._watching = start_watching(self._tls, self._change_tls)

    def _change_tls(self, tls: ssl.SSLContext) -> None:
        """Show another certificate from the next connection on."""
        self._tls = tls

    def accept(self) -> int:
        """Accept what waits, up to the bound; return how many came."""
        for count in range(ACCEPTED_PER_TURN):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return count
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                _log.error("no more connections for %g s: %s", _REST_SECONDS, error.strerror)
                self._loop.remove_reader(self._listener)
                self._rest = self._loop.call_later(_REST_SECONDS, self._go_on)
                return count
            self._begin(connection)
        return ACCEPTED_PER_TURN

    def close(self) -> None:
        """Accept no more; connections that there are go on."""
        if self._serving:
            self._serving = False
            if self._rest is not None:
                self._rest.cancel()
            self._loop.remove_reader(self._listener)
        if self._watching is not None:
            self._watching.cancel()

    async def wait_closed(self) -> None:
        """Return once no accepted connection is still being set up."""
        if self._begun:
            await asyncio.wait(tuple(self._begun))

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = self._loop.create_task(self._set_up(connection))
        self._begun.add(begun)
        begun.add_done_callback(self._begun.discard)

    async def _set_up(self, connection: socket.socket) -> None:
        try:
            handshake = None if self._tls is None else HANDSHAKE_SECONDS
            await self._loop.connect_accepted_socket(
                self._factory, connection, ssl=self._tls, ssl_handshake_timeout=handshake
            )
        except OSError:
            connection.close()  # it has gone again

    def _go_on(self) -> None:
        self._rest = None
        if self._serving:
            self._loop.add_reader(self._listener, self.accept)


def new_serving_loop() -> asyncio.AbstractEventLoop:
    """Make the event loop of a serving process: uvloop where there is one, accepting in batches."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - not on every system

    class ServingLoop(uvloop.Loop):
        """uvloop's, but for how it accepts."""

        async def create_server(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
            listener = options.get("sock")
            if listener is None:
                return await super().create_server(protocol_factory, *args, **options)
            # Operators are on a network of their own, or on loopback: their port is plain.
            operators = os.environ.get(ADMIN_PORT) == str(listener.getsockname()[1])
            tls = None if operators else options.get("ssl")
            server = BatchServer(self, protocol_factory, listener, tls)
            server.start(options.get("backlog", 100))
            return server

    return ServingLoop()
