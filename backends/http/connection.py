r"""One connection to a server: bytes between its socket and the exchange it is used for.

    IDLE --send--> BUSY --whole answer, released--> IDLE
     |              |  \--finish--> LINGERING --whole answer--> IDLE
     +--------------+------------------+--> CLOSED

Rules: a connection is closed, never reused, after anything but a whole answer to a whole request;
bytes that come while nobody asked close it too, and count against the server. Closing is abrupt:
it is what makes vLLM abort a request that is still running.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol, cast

from backends.http.exchange import AWAITING_HEAD, COMPLETE, FAILED, IN_BODY, HttpExchange

_MOST_HELD_BYTES: Final = 256 * 1024
"""Of a body that nobody takes; the socket is not read beyond it."""
_WRITTEN_AT_ONCE_BYTES: Final = 128 * 1024
_LINGER_SECONDS: Final = 0.25
_MOST_LINGER_BYTES: Final = 64 * 1024
_PEEK: Final = socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)


class ConnectionOwner(Protocol):
    """What a connection needs of the pool that it belongs to."""

    loop: asyncio.AbstractEventLoop

    def take_back(self, connection: "HttpConnection") -> None:
        """Keep a connection that is idle again."""

    def forget(self, connection: "HttpConnection") -> None:
        """Note that a connection is closed."""

    def distrust(self, why: str) -> None:
        """Note that the server sent what nobody asked for."""


class HttpConnection(asyncio.Protocol):
    """A connection of a pool's; `sent_at` is when the request was, in monotonic seconds."""

    __slots__ = (
        "_linger", "_loop", "_pool", "_read_paused", "_socket", "_transport", "_waiter",
        "_write_paused", "closed", "exchange", "idle_since", "on_news", "peer", "reused", "sent_at",
    )  # fmt: skip

    def __init__(self, pool: ConnectionOwner, sock: socket.socket, peer: object) -> None:
        self.peer = peer
        self.exchange: HttpExchange | None = None
        self.closed = False
        self.reused = False
        self.idle_since = 0.0
        self.sent_at = 0.0
        self.on_news: Callable[[], None] | None = None
        """Called when something has come or broken, where nobody waits in `read`."""
        self._pool = pool
        self._socket = sock
        self._loop = pool.loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._read_paused = False
        self._write_paused = False

    # --- what the event loop calls ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Feed the exchange, and wake whoever waits for it."""
        exchange = self.exchange
        if exchange is None:
            self._pool.distrust(f"{len(data)} bytes that nobody asked for")
            self.abort()
            return
        exchange.feed(data)
        if self._linger is not None:
            self._linger_on(exchange)
        else:
            self._wake()
            if exchange.held > _MOST_HELD_BYTES:
                self.pause()

    def eof_received(self) -> None:
        """Note the end of what is sent; there is nothing to be said to a server that has left."""
        if self.exchange is not None:
            self.exchange.end_input()
            self._wake()
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone, for whatever reason."""
        if self.exchange is not None:
            self.exchange.lose(f"the connection broke: {exc or 'closed'}")
        self._transport = None
        self._forget()

    def pause_writing(self) -> None:
        """Note that the server takes no more for now."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on sending."""
        self._write_paused = False
        self._wake()

    # --- what its user calls ------------------------------------------------------------------

    @property
    def clean(self) -> bool:
        """Whether an idle connection is still open and has nothing to be read."""
        if self.closed or self._transport is None or self._transport.is_closing():
            return False
        try:
            unread = self._socket.recv(1, _PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if unread:
            self._pool.distrust("unread bytes on an idle connection")
        return False

    async def send(self, head: bytes, body: bytes | None) -> HttpExchange:
        """Send a request; return its exchange at the answer's head. Never raises what came of it.

        A large body goes out in pieces, so that no one request holds the event loop; it is not sent
        to its end where the answer comes first.
        """
        exchange = self.exchange = HttpExchange()
        transport = self._transport
        if transport is None or self.closed:
            exchange.end_input()
            return exchange
        self.sent_at = time.monotonic()
        if body is None or len(body) <= _WRITTEN_AT_ONCE_BYTES:
            transport.write(head if body is None else head + body)
        else:
            transport.write(head)
            await self._send_in_pieces(transport, exchange, body)
        while exchange.state is AWAITING_HEAD:
            await self._wait()
        return exchange

    async def read(self) -> bytes:
        """Return what there is of the body, waiting for some; b"" at its end.

        Raises ConnectionLost or InvalidResponse, after everything that came before.
        """
        exchange = cast("HttpExchange", self.exchange)
        while not exchange.pieces:
            if exchange.state is COMPLETE:
                return b""
            if exchange.state is FAILED:
                exchange.raise_error()
            await self._wait()
        self.resume()
        return exchange.take()

    def pause(self) -> None:
        """Read no more from the socket for now."""
        if not self._read_paused and self._transport is not None:
            self._read_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._read_paused:
            self._read_paused = False
            if self._transport is not None:
                self._transport.resume_reading()

    def finish(self) -> None:
        """Let go of an answer of which nothing but its end is still expected."""
        exchange = cast("HttpExchange", self.exchange)
        if exchange.state is IN_BODY and not self.closed and not self._read_paused:
            exchange.take()
            self._linger = self._loop.call_later(_LINGER_SECONDS, self.abort)
        else:
            self.release()

    def release(self) -> None:
        """Give the connection back if its exchange was whole in both directions, else close it."""
        exchange = cast("HttpExchange", self.exchange)
        transport = self._transport
        if (
            not exchange.reusable
            or self.closed
            or self._read_paused
            or transport is None
            or transport.get_write_buffer_size()
        ):
            if exchange.surplus:
                self._pool.distrust("more than one answer to a request")
            self.abort()
            return
        self.exchange = None
        self.on_news = None
        self.reused = True
        self._pool.take_back(self)

    def discard(self, why: str) -> None:
        """Close a connection whose server confuses answers."""
        self._pool.distrust(why)
        self.abort()

    def abort(self) -> None:
        """Close at once, whatever is on its way."""
        self.on_news = None
        if self._transport is not None:
            self._transport.abort()
        self._forget()

    # --- within -------------------------------------------------------------------------------

    async def _send_in_pieces(
        self, transport: asyncio.Transport, exchange: HttpExchange, body: bytes
    ) -> None:
        view = memoryview(body)
        for start in range(0, len(body), _WRITTEN_AT_ONCE_BYTES):
            transport.write(view[start : start + _WRITTEN_AT_ONCE_BYTES])
            await asyncio.sleep(0)
            while self._write_paused and exchange.state is AWAITING_HEAD:
                await self._wait()
            if exchange.state is not AWAITING_HEAD:
                # Sent half, it ends with this exchange.
                exchange.surplus = exchange.surplus or start + _WRITTEN_AT_ONCE_BYTES < len(body)
                return
        self.sent_at = time.monotonic()

    async def _wait(self) -> None:
        """Wait until something has come, gone out, or broken."""
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            if not waiter.done():
                waiter.set_result(None)
        elif self.on_news is not None:
            self.on_news()

    def _linger_on(self, exchange: HttpExchange) -> None:
        """Read on to the end of an answer that nobody reads any more."""
        if exchange.state is not IN_BODY or exchange.held > _MOST_LINGER_BYTES:
            self._stop_lingering()
            self.release()

    def _stop_lingering(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _forget(self) -> None:
        if not self.closed:
            self.closed = True
            self._stop_lingering()
            if self.exchange is not None:
                self.exchange.end_input()
            self._pool.forget(self)
        self._wake()
