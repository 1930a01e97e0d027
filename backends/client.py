"""What sends to backends and meters: one exchange at a time over kept connections.

Rules: nothing but a BackendError escapes; no redirect is followed and no total timeout is set here
(answers take minutes, and the caller knows how long it will wait); a request that meets the close
of a kept connection is sent once more, on a new one, if the connection was closed at once and no
byte came. Everything else that goes wrong is an attempt of the caller's.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from backends.errors import BackendTimeout, ResponseTooLarge
from backends.http.address_rules import ANY_BUT_LOCAL_LINK, AddressRules
from backends.http.connection import HttpConnection
from backends.http.exchange import COMPLETE, FAILED, IN_BODY, HttpExchange, encode_request_head
from backends.http.loop_patience import limit_loop_seconds
from backends.http.pool import ConnectionPool
from backends.http.url import Origin, RequestUrl

MOST_CONNECTIONS: Final = 4096
"""To one server, in use at once; vLLM runs 256 to 1,024 requests and queues the rest."""
_CLOSED_AT_ONCE_SECONDS: Final = 0.2
"""After sending; a server that has begun to work on a request dies later than that."""


class BackendResponse:
    """An answer whose head has come; its body is read in the pieces it arrives in."""

    __slots__ = ("_connection", "_exchange", "status")

    def __init__(self, connection: HttpConnection, exchange: HttpExchange) -> None:
        self._connection: HttpConnection | None = connection
        self._exchange = exchange
        self.status = exchange.status

    def get_header(self, name: str) -> str | None:
        """Return one header's value, or None."""
        value = self._exchange.header(name.lower().encode())
        return None if value is None else value.decode("latin-1")

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """All headers, as (lower-case name, value) in the order they came."""
        return self._exchange.headers

    async def read_chunk(self) -> bytes:
        """Return the bytes that are there, waiting for some; b"" at the end.

        Raises ConnectionLost or InvalidResponse.
        """
        return await self._open_connection.read()

    async def read_body(self, limit: int, hold: Callable[[int], None] | None = None) -> bytes:
        """Return the rest of the body. Raises ResponseTooLarge where it is over `limit` bytes.

        `hold` is told how many bytes have come, each time some have, and may raise.
        """
        exchange = self._exchange
        if exchange.content_length is not None and exchange.content_length > limit:
            raise ResponseTooLarge(f"the answer is over {limit} bytes")
        if exchange.state is COMPLETE and exchange.held <= limit:
            if hold is not None:
                hold(exchange.held)
            return exchange.take()
        read = self._open_connection.read
        pieces: list[bytes] = []
        size = 0
        while piece := await read():
            size += len(piece)
            if size > limit:
                raise ResponseTooLarge(f"the answer is over {limit} bytes")
            if hold is not None:
                hold(len(piece))
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def listen(self, on_news: Callable[[], None]) -> None:
        """Have `on_news` called whenever something has come or broken, instead of waiting.

        It takes what there is by `take`; it is called first when something comes next. The head is
        let go of: by then it has been read.
        """
        self._exchange.headers.clear()
        self._open_connection.on_news = on_news

    def stop_listening(self) -> None:
        """Wait by `read_chunk` again."""
        if self._connection is not None:
            self._connection.on_news = None

    def take(self) -> bytes:
        """Return the bytes that are there, maybe none. Raises as `read_chunk` does, after them."""
        exchange = self._exchange
        if exchange.pieces:
            return exchange.take()
        exchange.raise_error()
        return b""

    @property
    def goes_on(self) -> bool:
        """Whether more of the body is still to come."""
        return self._exchange.state is IN_BODY

    @property
    def over(self) -> bool:
        """Whether everything has come and been taken."""
        return self._exchange.state is COMPLETE and not self._exchange.pieces

    def pause(self) -> None:
        """Read no more from the backend for now, so that it waits too."""
        self._open_connection.pause()

    def resume(self) -> None:
        """Read on after `pause`."""
        if self._connection is not None:
            self._connection.resume()

    def close(self) -> None:
        """Give the connection back if the answer is whole, else close it at once.

        Closing is what makes vLLM abort a request that is still running.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def discard(self) -> None:
        """Close the connection, and keep none to this server for a while: it confuses answers."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.discard("the answer to another request")

    def finish_reading(self) -> None:
        """Let go of an answer whose last event has been read.

        The few bytes behind it are read meanwhile, so that the connection can be used again.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish()

    @property
    def _open_connection(self) -> HttpConnection:
        if self._connection is None:
            raise RuntimeError("the answer has been closed")
        return self._connection


class BackendClient:
    """Connections to all backends of one process; open between `async with` and its end.

    `connect_seconds` bounds looking a name up, connecting and TLS together.
    """

    def __init__(
        self,
        *,
        connect_seconds: float,
        most_connections: int = MOST_CONNECTIONS,
        closed_at_once_seconds: float = _CLOSED_AT_ONCE_SECONDS,
        rules: AddressRules = ANY_BUT_LOCAL_LINK,
    ) -> None:
        self._rules = rules
        self._connect_seconds = connect_seconds
        self._most_connections = most_connections
        self._closed_at_once_seconds = closed_at_once_seconds
        self._pools: dict[Origin, ConnectionPool] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        # The event loop closes a connection in its next turn.
        await asyncio.sleep(0)

    @property
    def busy(self) -> int:
        """Connections in use, to whomever."""
        return sum(pool.busy for pool in self._pools.values())

    async def post(
        self, url: RequestUrl, body: bytes, headers: Mapping[str, str], *, resend: bool = True
    ) -> BackendResponse:
        """Send a body: see `request`."""
        return await self.request("POST", url, body, headers, resend=resend)

    async def request(
        self,
        method: str,
        url: RequestUrl,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        resend: bool = True,
    ) -> BackendResponse:
        """Send a request and return once the answer's head is there; the caller sets a deadline.

        With `resend` it is sent once more where it meets a kept connection's close. Raises
        BackendUnreachable, ConnectionLost or InvalidResponse.
        """
        head = encode_request_head(method, url, headers, None if body is None else len(body))
        return await self._send(url.origin, head, body, urgent=False, resend=resend)

    async def get(
        self, url: RequestUrl, headers: Mapping[str, str], *, seconds: float, limit: int = 1 << 20
    ) -> tuple[int, bytes]:
        """Return status and body of a small response; it waits for no turn, as a probe must not.

        Raises what `post` and `read_body` raise, and BackendTimeout.
        """
        head = encode_request_head("GET", url, headers, None)
        try:
            async with limit_loop_seconds(seconds):
                answer = await self._send(url.origin, head, None, urgent=True, resend=True)
                try:
                    return answer.status, await answer.read_body(limit)
                finally:
                    answer.close()
        except TimeoutError:
            raise BackendTimeout(f"no answer within {seconds:g} s") from None

    async def _send(
        self, origin: Origin, head: bytes, body: bytes | None, *, urgent: bool, resend: bool
    ) -> BackendResponse:
        pool = self._pools.get(origin) or self._make_pool(origin)
        connection = await pool.acquire(urgent=urgent)
        try:
            exchange = await connection.send(head, body)
            if exchange.state is FAILED:
                if not (resend and self._met_a_close(connection, exchange)):
                    exchange.raise_error()
                connection.abort()
                connection = await pool.acquire(fresh=True)
                exchange = await connection.send(head, body)
                exchange.raise_error()
        except BaseException:
            connection.abort()
            raise
        return BackendResponse(connection, exchange)

    def _make_pool(self, origin: Origin) -> ConnectionPool:
        pool = ConnectionPool(
            origin,
            connect_seconds=self._connect_seconds,
            most=self._most_connections,
            rules=self._rules,
        )
        self._pools[origin] = pool
        return pool

    def _met_a_close(self, connection: HttpConnection, exchange: HttpExchange) -> bool:
        """Tell whether a kept connection was closed before the request can have been read."""
        return (
            connection.reused
            and not exchange.received
            and time.monotonic() - connection.sent_at < self._closed_at_once_seconds
        )
