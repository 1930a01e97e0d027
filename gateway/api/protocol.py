"""uvicorn's HTTP/1.1, with what it leaves open closed: slow heads, huge heads, doubtful framing.

The rules: a request's head is whole within `HEAD_SECONDS` and `HEAD_BYTES`; HTTP/1.1 has exactly
one Host; a Transfer-Encoding is `chunked` and nothing else. What breaks them gets OpenAI's error
shape and a closed connection. An offer to upgrade is ignored (`upgrade_offer`), HTTP/1.0 is
answered unchunked, and a client that has closed only its own side gets its answer (`half_closed`).
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gateway.api.client_flow import ClientFlow
from gateway.api.half_closed import HalfClosedWatch, can_tell_half_closed
from gateway.api.unchunked import answer_unchunked
from gateway.api.upgrade_offer import find_framing, make_parser_after_head
from gateway.service.client.api_error import ApiError
from gateway.service.client.errors import BadRequest, BodyTimeout, HeadTooLarge

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

    def forget_head(self) -> None:
        """Let go of the headers that the client sent: 2.6 kB of each stream that runs."""
        self._cycle.scope["headers"].clear()  # type: ignore[attr-defined] # uvicorn's list

    def write_whole(
        self, send: object, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """Send a whole answer in one write, its length among `headers`; tell whether it could be.

        It cannot where `send` is not this request's own (something wraps the answer), to HEAD, and
        while the client is not reading. Names in lower case, nothing a client gave in values.
        """
        cycle = self._cycle
        if (
            getattr(send, "__self__", None) is not cycle
            or cycle.response_started
            or cycle.disconnected
            or cycle.flow.write_paused
            or cycle.scope["method"] == "HEAD"
        ):
            return False
        pairs = [*cycle.default_headers, *headers]
        if not cycle.keep_alive:
            pairs.append((b"connection", b"close"))
        head = b"%b: %b\r\n" * len(pairs) % tuple(chain.from_iterable(pairs))
        if head.count(b"\r") + head.count(b"\n") != 2 * len(pairs):
            return False  # a line end within a value: uvicorn refuses it
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(b"".join((STATUS_LINE[status], head, b"\r\n", body)))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True


class GuardedProtocol(HttpToolsProtocol):
    """One connection; it is the `ClientConnection` of its requests."""

    # With uvicorn's they would be over the 30 attributes up to which CPython's objects share keys:
    # a dictionary of its own takes a connection 1.4 kB more.
    __slots__ = (
        "_half_closed", "_head_bytes", "_in_head", "_offer", "_timer", "on_drained", "on_lost",
    )  # fmt: skip

    def __init__(self, *of_server: Any, **more_of_server: Any) -> None:
        super().__init__(*of_server, **more_of_server)
        self.on_lost: Callable[[], None] | None = None
        self.on_drained: Callable[[], None] | None = None
        self._head_bytes = 0
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None
        self._offer: bytes | None = None
        """The framing of a request whose head offered to upgrade, until that is ignored."""
        self._half_closed: HalfClosedWatch | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head from now on."""
        super().connection_made(transport)
        self.flow = ClientFlow(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._expire_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more, and tell whoever is still answering."""
        self._stop_timer()
        if self._half_closed is not None:
            self._half_closed.stop()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
        # Each leads back here: a cycle that would keep the connection until a collection, which
        # for one that lived long may be hours away.
        scope: dict[str, Any] | None = self.scope  # type: ignore[assignment]
        if scope is not None:
            scope["extensions"].clear()
        self.parser = self.scope = self.cycle = None  # type: ignore[assignment]
        self._half_closed = self.on_lost = self.on_drained = None
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse a head that grows too large."""
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._in_head:
            if self._head_bytes > HEAD_BYTES:
                self._refuse_request(HeadTooLarge(f"the request's head is over {HEAD_BYTES} bytes"))
            elif self._timer is None and self._head_bytes:
                # Most heads come whole, in one piece, and need no timer.
                self._timer = self.loop.call_later(HEAD_SECONDS, self._expire_head)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep a connection whose client has closed its side while it waits for an answer.

        Once an answer has begun whoever closes is gone; so is one whose request is not whole.
        """
        cycle: RequestResponseCycle | None = self.cycle
        if (
            cycle is None
            or cycle.response_started
            or cycle.more_body
            or self.transport.is_closing()
            or self.transport.get_extra_info("sslcontext") is not None  # TLS has no half
            or self.scope["http_version"] != "1.1"
            or not can_tell_half_closed()
        ):
            return False
        cycle.keep_alive = False
        self._half_closed = HalfClosedWatch(self.transport, self.abort)
        return True

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION_KEY: self}  # type: ignore[dict-item]
        self._head_bytes = 0
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what any of them means is looked at once, when all are there."""
        self.headers.append((name.lower(), value))

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
            elif name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
        version = self.parser.get_http_version()
        if hosts != 1 and version == "1.1":
            raise httptools.HttpParserError("HTTP/1.1 takes exactly one Host")
        if self.parser.should_upgrade():
            self._offer = find_framing(self.headers)
        if version == "1.0":
            app, self.app = self.app, answer_unchunked(self.app)
            super().on_headers_complete()
            self.app = app
        else:
            super().on_headers_complete()
        # The request's task has yet to begin; a pipelined one has a cycle of its own.
        self.scope["extensions"][PIECES] = ResponsePieces(self, self.cycle)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        """Note that a request is whole, unless its body is yet to be read after an offer."""
        if not self._offer:
            super().on_message_complete()

    def resume_writing(self) -> None:
        """Go on where the client's side was full."""
        super().resume_writing()
        if self.on_drained is not None:
            self.on_drained()

    @property
    def body_ready(self) -> bool:
        """Whether the request's body has come whole."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.more_body

    def abort(self) -> None:
        """Drop the connection and what is buffered for it."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse_request(BadRequest(msg))

    def _parse(self, data: bytes) -> None:
        """Feed the parser; where it stops at an offer to upgrade, go on with a fresh one."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                framing, self._offer = self._offer or b"", None
                self.parser = make_parser_after_head(self, framing)
                data = data[stopped.args[0] :]
                if data:
                    continue
            return

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
