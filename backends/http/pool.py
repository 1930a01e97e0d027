"""All connections to one server: kept for the next request, bounded, and handed out in order.

Rules: the one used last is used first, so that the rest grow old and are closed; a kept connection
is looked at before it is handed out; beyond `most` connections requests wait their turn, first come
first served. A server that sends what nobody asked for is not trusted with kept connections for a
while: what came might be taken for the next request's answer.
"""

import asyncio
import logging
import socket
import time
from collections import deque
from ssl import SSLContext
from typing import Final

from backends.errors import BackendUnreachable
from backends.http.address_rules import ANY_BUT_LOCAL_LINK, AddressRules
from backends.http.connection import HttpConnection
from backends.http.loop_patience import limit_loop_seconds
from backends.http.resolver import Endpoint, HostResolver
from backends.http.tls import make_tls_context
from backends.http.url import Origin

_log = logging.getLogger("joulegate.backends")

KEEPALIVE_SECONDS: Final = 4.0
"""vLLM closes an idle connection after 5 s; a request sent into that close would be lost."""
_SWEEP_SECONDS: Final = 1.0
_DISTRUST_SECONDS: Final = 60.0


class ConnectionPool:
    """Connections to one origin; `most` bounds them but for `urgent` ones. Lives in one loop."""

    def __init__(
        self,
        origin: Origin,
        *,
        connect_seconds: float,
        most: int,
        rules: AddressRules = ANY_BUT_LOCAL_LINK,
    ) -> None:
        self._rules = rules
        self.loop = asyncio.get_running_loop()
        self._origin = origin
        self._connect_seconds = connect_seconds
        self._most = most
        self._resolver = HostResolver(origin.host, origin.port)
        self._tls: SSLContext | None = None
        self._idle: dict[HttpConnection, None] = {}
        self._open: set[HttpConnection] = set()
        self._connecting = 0
        self._granted = 0
        self._turns: deque[asyncio.Future[None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._refresh: asyncio.Task[None] | None = None
        self._distrusted_until = 0.0

    @property
    def idle(self) -> int:
        """Connections that are kept and not in use."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """Connections that are in use, being made, or promised to whose turn it is."""
        return len(self._open) - len(self._idle) + self._connecting + self._granted

    async def acquire(self, *, fresh: bool = False, urgent: bool = False) -> HttpConnection:
        """Return a connection; `fresh`: a new one; `urgent`: now, whatever the bound.

        Raises BackendUnreachable. Who waits for his turn is bound by his own deadline.
        """
        if not (fresh or urgent) and (self._turns or self.busy >= self._most):
            await self._wait_turn()
        kept = None if fresh else self._take_idle()
        return await self._connect() if kept is None else kept

    def take_back(self, connection: HttpConnection) -> None:
        """Keep a connection for the next request, or close it where that is not safe."""
        now = self.loop.time()
        gone = not self._resolver.numeric and not self._is_current(connection.peer)
        if now < self._distrusted_until or gone:
            connection.abort()
            return
        connection.idle_since = now
        self._idle[connection] = None
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(_SWEEP_SECONDS, self._sweep)
        self._next_turn()

    def forget(self, connection: HttpConnection) -> None:
        """Note that a connection is closed."""
        self._idle.pop(connection, None)
        self._open.discard(connection)
        self._next_turn()

    def distrust(self, why: str) -> None:
        """Keep no connections for a while: this server sends what nobody asked for."""
        now = self.loop.time()
        if now >= self._distrusted_until:
            _log.warning(
                "%s: %s; its connections are not used again for %g s",
                self._origin.authority, why, _DISTRUST_SECONDS,
            )  # fmt: skip
        self._distrusted_until = now + _DISTRUST_SECONDS
        for connection in tuple(self._idle):
            connection.abort()

    def close(self) -> None:
        """Close everything, what is in use included."""
        for turn in self._turns:
            turn.cancel()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._refresh is not None:
            self._refresh.cancel()
        self._resolver.close()
        for connection in tuple(self._open):
            connection.abort()

    # --- kept connections ---------------------------------------------------------------------

    def _take_idle(self) -> HttpConnection | None:
        if self._idle and self._resolver.stale and self._refresh is None:
            self._refresh = self.loop.create_task(self._look_again())
        while self._idle:
            connection, _ = self._idle.popitem()
            if self.loop.time() - connection.idle_since < KEEPALIVE_SECONDS and connection.clean:
                return connection
            connection.abort()
        return None

    async def _look_again(self) -> None:
        """Look the name up anew, and drop kept connections to addresses it no longer has."""
        try:
            await self._resolver.resolve()
        except OSError:
            return
        finally:
            self._refresh = None
        for connection in tuple(self._idle):
            if not self._is_current(connection.peer):
                connection.abort()

    def _is_current(self, peer: object) -> bool:
        return any(address == peer for _, address in self._resolver.endpoints)

    def _sweep(self) -> None:
        """Close what has been idle for too long; the oldest stand first."""
        self._sweeper = None
        oldest = self.loop.time() - KEEPALIVE_SECONDS
        while self._idle:
            connection = next(iter(self._idle))
            if connection.idle_since > oldest:
                self._sweeper = self.loop.call_later(_SWEEP_SECONDS, self._sweep)
                return
            connection.abort()

    # --- turns --------------------------------------------------------------------------------

    async def _wait_turn(self) -> None:
        turn: asyncio.Future[None] = self.loop.create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._granted -= 1
                self._next_turn()  # it had been its turn: somebody else's now
            raise
        self._granted -= 1

    def _next_turn(self) -> None:
        while self._turns and self.busy < self._most:
            turn = self._turns.popleft()
            if not turn.done():
                self._granted += 1
                turn.set_result(None)

    # --- new connections ----------------------------------------------------------------------

    async def _connect(self) -> HttpConnection:
        self._connecting += 1
        try:
            async with limit_loop_seconds(self._connect_seconds):
                connection = await self._connect_to_any(await self._resolver.resolve())
        except TimeoutError:
            self._resolver.expire()
            raise BackendUnreachable(
                f"no connection to {self._origin.authority} within {self._connect_seconds:g} s"
            ) from None
        except OSError as error:
            self._resolver.expire()
            why = error.strerror or str(error) or type(error).__name__
            raise BackendUnreachable(f"no connection to {self._origin.authority}: {why}") from None
        finally:
            self._connecting -= 1
            self._next_turn()
        return connection

    async def _connect_to_any(self, endpoints: list[Endpoint]) -> HttpConnection:
        """Try one address after another, each within its share of the time there is."""
        if not endpoints:
            raise OSError("the name has no address")
        endpoints = [one for one in endpoints if self._rules.allows(str(one[1][0]))]
        if not endpoints:
            raise OSError("its address is none that may be asked")
        until = time.monotonic() + self._connect_seconds
        for left in range(len(endpoints), 1, -1):
            share = max((until - time.monotonic()) / left, self._connect_seconds / len(endpoints))
            try:
                async with limit_loop_seconds(share):
                    return await self._connect_to(endpoints[-left])
            except OSError:  # TimeoutError is one
                continue
        return await self._connect_to(endpoints[-1])

    async def _connect_to(self, endpoint: Endpoint) -> HttpConnection:
        family, address = endpoint
        sock = socket.socket(family, socket.SOCK_STREAM)
        connection = HttpConnection(self, sock, address)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await self.loop.sock_connect(sock, address)
            tls = self._origin.tls
            if tls is None:
                await self.loop.create_connection(lambda: connection, sock=sock)
            else:
                if self._tls is None:
                    self._tls = make_tls_context(tls)
                name = self._origin.host
                await self.loop.create_connection(
                    lambda: connection, sock=sock, ssl=self._tls, server_hostname=name,
                    ssl_handshake_timeout=4 * self._connect_seconds,  # ours comes first
                )  # fmt: skip
        except BaseException:
            connection.abort()
            sock.close()
            raise
        if connection.closed:
            raise ConnectionResetError("closed as soon as it was made")
        self._open.add(connection)
        return connection
