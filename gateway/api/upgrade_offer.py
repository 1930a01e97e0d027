"""Going on after an offer to upgrade that is not taken (RFC 9110, 7.8): it is as if not there.

Java's HttpClient offers h2c on every request in clear text. httptools stops at the end of such a
head and takes the body for something else's; so a fresh parser is told of the same framing, and
reads the body and what comes after it.
"""

from collections.abc import Iterable
from typing import Any

import httptools

_HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n"


def find_framing(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the header line that says how long a request's body is; b"" where it has none."""
    for name, value in headers:
        if name == b"transfer-encoding":
            return b"transfer-encoding: chunked"
        if name == b"content-length" and value.strip(b"0 "):
            return b"content-length: " + value
    return b""


class _BodyListener:
    """Passes a parser's calls on to a protocol, but for those about the head it was told of."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.in_told_head = True

    def on_message_begin(self) -> None:
        if not self.in_told_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.in_told_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_told_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.in_told_head:
            self._protocol.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        self._protocol.on_message_complete()


def make_parser_after_head(protocol: Any, framing: bytes) -> httptools.HttpRequestParser:
    """Make a parser for what follows a head with this framing; b"": for the next request."""
    listener = _BodyListener(protocol)
    parser = httptools.HttpRequestParser(listener)
    if framing:
        parser.feed_data(_HEAD % framing)
    listener.in_told_head = False
    return parser
