"""uvicorn's HTTP/1.1, with what it leaves open closed: slow heads, huge heads, doubtful framing.

The rules: a request's head is whole within `HEAD_SECONDS` and `HEAD_BYTES`; HTTP/1.1 has exactly
one Host; a Transfer-Encoding is `chunked` and nothing else. What breaks them gets OpenAI's error
shape and a closed connection.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gateway.service.client.errors import ApiError, BadRequest, BodyTimeout, HeadTooLarge

CONNECTION_KEY = "joulegate.link"
"""Key of this connection among a scope's extensions: see `ClientConnection`."""

PIECES = "joulegate.pieces"
"""Key of a request's ResponsePieces there."""

HEAD_SECONDS = 20.0
HEAD_BYTES = 64 * 1024


class ClientConnection(Protocol):
    """What a handler may use of its connection."""

    on_lost: Callable[[], None] | None
    """Called when the connection is lost while an answer is due; cheaper than waiting for it."""

    @property
    def body_ready(self) -> bool:
        """Whether the request's body has come whole."""

    def abort(self) -> None:
        """Drop the connection and what is buffered for it."""


class ResponsePieces:
    """Writes pieces of one answer's body past ASGI's messages: see `PieceWriter`."""

    __slots__ = ("_cycle", "_protocol")

    def __init__(self, protocol: "GuardedProtocol", cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle

    @property
    def on_drained(self) -> Callable[[], None] | None:
        """What is called when the client reads again."""
        return self._protocol.on_drained

    @on_drained.setter
    def on_drained(self, drained: Callable[[], None] | None) -> None:
        self._protocol.on_drained = drained

    @property
    def blocked(self) -> bool:
        """Whether the client's side is full."""
        return self._cycle.flow.write_paused and not self._cycle.disconnected

    def write(self, piece: bytes) -> None:
        """Send a piece, as a chunk where the answer is chunked."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        if cycle.chunked_encoding:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            cycle.transport.write(piece)


class GuardedProtocol(HttpToolsProtocol):
    """One connection; it is the `ClientConnection` of its requests."""

    on_lost: Callable[[], None] | None = None
    on_drained: Callable[[], None] | None = None
    _head_bytes = 0
    _in_head = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head from now on."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._expire_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more, and tell whoever is still answering."""
        self._stop_timer()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
        # It holds this object's methods: a cycle that would keep the connection until a collection.
        self.parser = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse a head that grows too large."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head:
            if self._head_bytes > HEAD_BYTES:
                self._refuse_request(HeadTooLarge(f"the request's head is over {HEAD_BYTES} bytes"))
            elif self._timer is None and self._head_bytes:
                # Most heads come whole, in one piece, and need no timer.
                self._timer = self.loop.call_later(HEAD_SECONDS, self._expire_head)

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION_KEY: self}  # type: ignore[dict-item]
        self._head_bytes = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Note that a head is whole; refuse doubtful framing."""
        self._in_head = False
        self._stop_timer()
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise httptools.HttpParserError("doubtful transfer-encoding")
        if hosts != 1 and self.parser.get_http_version() == "1.1":
            raise httptools.HttpParserError("HTTP/1.1 takes exactly one Host")
        super().on_headers_complete()
        # The request's task has yet to begin; a pipelined one has a cycle of its own.
        self.scope["extensions"][PIECES] = ResponsePieces(self, self.cycle)  # type: ignore[assignment]

    def resume_writing(self) -> None:
        """Go on where the client's side was full."""
        super().resume_writing()
        if self.on_drained is not None:
            self.on_drained()

    @property
    def body_ready(self) -> bool:
        """Whether the request's body has come whole."""
        return not self.cycle.more_body

    def abort(self) -> None:
        """Drop the connection and what is buffered for it."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse_request(BadRequest(msg))

    def _expire_head(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse_request(BodyTimeout("the request's head did not come in time"))
        else:
            self.transport.close()

    def _refuse_request(self, error: ApiError) -> None:
        if self.transport.is_closing():
            return
        body = error.encode_json()
        self.transport.write(
            STATUS_LINE[error.status]
            + b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
            + str(len(body)).encode()
            + b"\r\n\r\n"
            + body
        )
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
