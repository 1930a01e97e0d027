"""Faults of HTTP's framing, and more answers than requests."""

import gzip
from dataclasses import replace

from tests.faults.asked import Asked, chunked, measured, padded
from tests.faults.script import CLOSE, STALL, Endless, FaultKinds, Script

KINDS = FaultKinds()


@KINDS.kind("split at every byte")
def _(asked: Asked) -> Script:
    return [bytes([byte]) for byte in asked.framed()]


@KINDS.kind("unframed")
def _(asked: Asked) -> Script:
    return [
        b"HTTP/1.0 200 OK\r\ncontent-type: %s\r\n\r\n" % asked.content_type,
        asked.payload,
        CLOSE,
    ]


@KINDS.kind("unframed, cut off")
def _(asked: Asked) -> Script:
    head = b"HTTP/1.0 200 OK\r\ncontent-type: %s\r\n\r\n" % asked.content_type
    return [head, asked.payload[: len(asked.payload) // 2], CLOSE]


@KINDS.kind("too long a length")
def _(asked: Asked) -> Script:
    return [asked.head(length=len(asked.payload) + 10) + asked.payload, CLOSE]


@KINDS.kind("too short a length")
def _(asked: Asked) -> Script:
    return [asked.head(length=len(asked.payload) - 10) + asked.payload]


@KINDS.kind("two lengths")
def _(asked: Asked) -> Script:
    return [asked.head(b"content-length: 3\r\n", length=len(asked.payload)) + asked.payload]


@KINDS.kind("length and chunks")
def _(asked: Asked) -> Script:
    return [asked.head(b"content-length: 3\r\n") + chunked(asked.payload) + b"0\r\n\r\n"]


@KINDS.kind("chunked garbage")
def _(asked: Asked) -> Script:
    return [asked.head() + chunked(asked.payload[:200]) + b"zz\r\n" + asked.payload[200:]]


@KINDS.kind("no HTTP")
def _(_: Asked) -> Script:
    return [b"\x00\xffSSH-2.0-no\r\n", CLOSE]


@KINDS.kind("a head of a megabyte")
def _(asked: Asked) -> Script:
    return [asked.head(b"x-pad: " + b"x" * (1 << 20) + b"\r\n"), STALL]


@KINDS.kind("endless head")
def _(_: Asked) -> Script:
    return [b"HTTP/1.1 200 OK\r\n", Endless(b"x-pad: " + b"x" * 1000 + b"\r\n")]


@KINDS.kind("endless body")
def _(asked: Asked) -> Script:
    return [asked.head(), Endless(chunked(b"x" * 65536))]


@KINDS.kind("a body of 20 MB")
def _(asked: Asked) -> Script:
    # A stream's is `a frame of 20 MB`.
    return [asked.framed() if asked.stream else asked.framed(padded(asked.body, 20 << 20))]


@KINDS.kind("interim answers")
def _(asked: Asked) -> Script:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    return [b"HTTP/1.1 100 Continue\r\n\r\n" + early, 0.01, early + asked.framed()]


@KINDS.kind("endless interim answers")
def _(_: Asked) -> Script:
    return [Endless(b"HTTP/1.1 100 Continue\r\n\r\n")]


@KINDS.kind("switching protocols")
def _(asked: Asked) -> Script:
    return [b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + asked.payload]


@KINDS.kind("gzip")
def _(asked: Asked) -> Script:
    return [asked.framed(gzip.compress(asked.payload), b"content-encoding: gzip\r\n")]


@KINDS.kind("gzip, cut off")
def _(asked: Asked) -> Script:
    return [asked.framed(gzip.compress(asked.payload)[:-9], b"content-encoding: gzip\r\n")]


@KINDS.kind("gzip that is none")
def _(asked: Asked) -> Script:
    return [asked.framed(more=b"content-encoding: gzip\r\n")]


@KINDS.kind("br")
def _(asked: Asked) -> Script:
    return [asked.framed(more=b"content-encoding: br\r\n")]


# --- more than one answer ---------------------------------------------------------------------


def _stray(asked: Asked) -> bytes:
    return replace(asked, word="STRAY").framed()


KINDS["a second answer at once"] = lambda a: [a.framed() + _stray(a)]
KINDS["a second answer soon"] = lambda a: [a.framed(), 0.005, _stray(a)]
KINDS["a second answer late"] = lambda a: [a.framed(), 0.1, _stray(a)]
KINDS["a timeout's 408 on the idle connection"] = lambda a: [
    a.framed(), 0.02, measured(b"408 Timeout", b""), CLOSE,
]  # fmt: skip
KINDS["proper"] = lambda a: [a.framed()]
KINDS["proper, closed after"] = lambda a: [a.framed(), CLOSE]
KINDS["proper, closing"] = lambda a: [a.framed(more=b"connection: close\r\n"), CLOSE]
