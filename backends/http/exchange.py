"""One HTTP/1.1 exchange as a pure machine: a request's bytes out, an answer's bytes in.

This file knows no socket, clock or event loop; whoever has one feeds it what was read.

    AWAITING_HEAD --head--> IN_BODY --last byte--> COMPLETE
       ^   | |                 |
       +1xx+ +-----------------+--> FAILED          `error` says what with

Rules: an answer is never judged by its status here. A body is framed by its length, by chunks, or
by the connection's end; anything else than its last byte or that end is a failure. What comes
behind a whole answer is not a part of it: it is noted as `surplus`, and the connection must not be
used again, nor after an answer that says so.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import httptools

from backends.errors import BackendError, ConnectionLost, InvalidResponse
from backends.http.encoding import BodyDecoder
from backends.http.url import RequestUrl

MOST_HEAD_BYTES: Final = 64 * 1024
"""Of a final answer's head, with the 1xx ones before it."""
_FIRST_FINAL_STATUS: Final = 200
_SWITCHING_PROTOCOLS: Final = 101


class ExchangeState(IntEnum):
    """How far an answer has come."""

    AWAITING_HEAD = 0
    IN_BODY = 1
    COMPLETE = 2
    FAILED = 3


AWAITING_HEAD: Final = ExchangeState.AWAITING_HEAD
IN_BODY: Final = ExchangeState.IN_BODY
COMPLETE: Final = ExchangeState.COMPLETE
FAILED: Final = ExchangeState.FAILED


def encode_request_head(
    method: str, url: RequestUrl, headers: Mapping[str, str], length: int | None
) -> bytes:
    """Return a request's head; `length` None: it has no body. Raises ValueError.

    Header values come from the configuration and from this gateway; a line end in one is refused
    all the same, because it would begin a request of its own.
    """
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if length is not None:
        lines.append(f"Content-Length: {length}\r\n")
    text = "".join(lines)
    if text.count("\r") + text.count("\n") != 2 * len(lines):
        raise ValueError("a header's value holds a line end")
    return f"{method}{url.head}{text}\r\n".encode("latin-1")


class HttpExchange:
    """An answer as it comes; `headers` are (lower-case name, value) in bytes.

    `pieces` are the body's bytes that nobody has taken yet, `held` of them. `received` says whether
    anything at all has come.
    """

    __slots__ = (
        "_decoder", "_framed", "_head_bytes", "_keep_alive", "_parser",
        "content_length", "error", "headers", "held", "pieces", "received", "state", "status",
        "surplus",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state = AWAITING_HEAD
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_length: int | None = None
        self.pieces: list[bytes] = []
        self.held = 0
        self.received = False
        self.surplus = False
        self.error: tuple[type[BackendError], str] | None = None
        self._head_bytes = 0
        self._framed = False
        self._keep_alive = False
        self._decoder: BodyDecoder | None = None
        # It holds this object's methods, a cycle that `_end` breaks: no collector need run.
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another exchange, as far as the answer tells."""
        return self.state is COMPLETE and self._keep_alive and not self.surplus

    def feed(self, data: bytes) -> None:
        """Take in what was read; never raises, see `state` and `error`."""
        parser = self._parser
        if parser is None:
            self.surplus = True
            return
        self.received = True
        if self.state is AWAITING_HEAD:
            self._head_bytes += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(InvalidResponse, "it switches protocols, which was not asked for")
        except httptools.HttpParserError as error:
            if self.state is COMPLETE:
                self.surplus = True
            else:
                self._fail(InvalidResponse, f"not HTTP/1.1: {error}")
        if self.state is AWAITING_HEAD:
            if self._head_bytes > MOST_HEAD_BYTES:
                self._fail(InvalidResponse, f"a head of over {MOST_HEAD_BYTES} bytes")
        elif self.state is not IN_BODY:
            self._parser = None

    def end_input(self) -> None:
        """Note that the other side sends nothing more; a body without a length ends so."""
        if self.state is IN_BODY and not self._framed:
            self._complete()
        elif self.state is AWAITING_HEAD:
            self._fail(ConnectionLost, "the connection was closed before an answer")
        elif self.state is IN_BODY:
            self._fail(ConnectionLost, "the connection was closed within the answer")
        self._parser = None

    def lose(self, why: str) -> None:
        """Note that the connection broke: what had no end yet will get none."""
        self._fail(ConnectionLost, why)

    def take(self) -> bytes:
        """Return what has come of the body and forget it."""
        pieces = self.pieces
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.held = 0
        return taken

    def header(self, name: bytes) -> bytes | None:
        """Return a header's first value; `name` in lower case."""
        for found, value in self.headers:
            if found == name:
                return value
        return None

    def raise_error(self) -> None:
        """Raise ConnectionLost or InvalidResponse, if it failed; each time a new one."""
        if self.error is not None:
            kind, text = self.error
            raise kind(text)

    # --- what httptools calls; an exception in here would be its own kind of error -----------

    def on_message_begin(self) -> None:
        """Note that an answer begins, be it one too many."""
        if self.state is COMPLETE:
            self.surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers behind a chunked body are of no interest."""
        if self.state is AWAITING_HEAD:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin the body, or wait on where the answer is an interim one."""
        parser = self._parser
        if self.state is not AWAITING_HEAD or parser is None:
            return
        status = parser.get_status_code()
        if status < _FIRST_FINAL_STATUS:
            if status != _SWITCHING_PROTOCOLS:
                self.headers.clear()
            return
        self.status = status
        self.state = IN_BODY
        self._read_framing()

    def _read_framing(self) -> None:
        """Learn from the headers where the body ends and how it is coded."""
        coding = b""
        for name, value in self.headers:
            if name == b"content-length":
                self._framed = True
                self.content_length = int(value) if value.isdigit() else None
            elif name == b"transfer-encoding":
                # Without `chunked` as the last one the body ends with the connection.
                self._framed = value.lower().rstrip().endswith(b"chunked")
                if value.strip().lower() != b"chunked":
                    self._fail(InvalidResponse, f"transfer-encoding {value[:40]!r}")
            elif name == b"content-encoding":
                coding = value.strip().lower()
        if coding and coding != b"identity":
            self._decoder = BodyDecoder.of(coding)
            if self._decoder is None:
                self._fail(
                    InvalidResponse, f"content-encoding {coding[:40]!r}, which was not asked for"
                )

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        if self.state is not IN_BODY:
            return
        if self._decoder is not None:
            try:
                data = self._decoder.decode(data)
            except ValueError as error:
                self._fail(InvalidResponse, str(error))
                return
            if not data:
                return
        self.pieces.append(data)
        self.held += len(data)

    def on_message_complete(self) -> None:
        """Note the answer's last byte."""
        parser = self._parser
        if self.state is IN_BODY and parser is not None:
            self._keep_alive = parser.should_keep_alive()
            self._complete()

    def _complete(self) -> None:
        if self._decoder is not None and not self._decoder.whole:
            self._fail(InvalidResponse, "a compressed body that was cut off")
        else:
            self.state = COMPLETE

    def _fail(self, kind: type[BackendError], text: str) -> None:
        if self.state is not COMPLETE and self.state is not FAILED:
            self.state = FAILED
            self.error = (kind, text)
