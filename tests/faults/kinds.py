"""The faults: for each a script of what a backend does after a request, unary or streaming.

A script is a list of steps: bytes are written, a float is a pause in seconds, and the rest are the
signals below. A script that ends without one of them leaves the connection open for more requests.
Where no script says otherwise, an answer repeats the request's own word, so that everyone can tell
his answer from another's.
"""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto


class Signal(Enum):
    """What a step can be beside bytes and a pause."""

    CLOSE = auto()
    RESET = auto()
    STALL = auto()
    """Nothing more, until the gateway leaves."""


@dataclass(frozen=True)
class Endless:
    """A piece that is written over and over, `pause` seconds apart."""

    piece: bytes
    pause: float = 0.0


Step = bytes | float | Signal | Endless
Script = list[Step]
CLOSE, RESET, STALL = Signal.CLOSE, Signal.RESET, Signal.STALL
PARTS = ("", "-mid", "-end")
"""What follows the word in each piece of an answer's text."""
_USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def text_of(word: str) -> str:
    """Return the text of a whole answer."""
    return word + "".join(PARTS)


@dataclass(frozen=True)
class Asked:
    """A request as a backend sees it."""

    word: str
    model: str
    stream: bool
    id: str = "c"
    """As vLLM makes it of the id that it is sent."""

    @property
    def events(self) -> list[bytes]:
        """A proper stream's events."""
        deltas = [{"role": "assistant", "content": ""}, {"content": self.word}]
        deltas += [{"content": part} for part in PARTS if part]
        found = [self.event(self.chunk(delta)) for delta in deltas]
        found.append(self.event(self.chunk({}, "stop")))
        found.append(self.event({**self.chunk({}), "choices": [], "usage": _USAGE}))
        return [*found, b"data: [DONE]\n\n"]

    @property
    def body(self) -> bytes:
        """A proper unary answer."""
        message = {"role": "assistant", "content": text_of(self.word)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = {"id": self.id, "object": "chat.completion", "created": 1, "model": self.model}
        return _json({**whole, "choices": [choice], "usage": _USAGE})

    def chunk(self, delta: dict, finish: str | None = None) -> dict:
        """Return a stream's chunk."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        kind = "chat.completion.chunk"
        whole = {"id": self.id, "object": kind, "created": 1, "model": self.model}
        return {**whole, "choices": [choice]}

    @staticmethod
    def event(value: dict) -> bytes:
        """Return a server-sent event."""
        return b"data: " + _json(value) + b"\n\n"

    @property
    def payload(self) -> bytes:
        """What a proper answer's body is, in either mode."""
        return b"".join(self.events) if self.stream else self.body

    @property
    def content_type(self) -> bytes:
        """The type of a proper answer."""
        return b"text/event-stream; charset=utf-8" if self.stream else b"application/json"

    def framed(
        self, payload: bytes | None = None, more: bytes = b"", status: bytes = b"200 OK"
    ) -> bytes:
        """Return an answer: chunked where a stream was asked for, else with its length."""
        payload = self.payload if payload is None else payload
        if self.stream:
            return self.head(more, status) + chunked(payload) + b"0\r\n\r\n"
        return self.head(more, status, len(payload)) + payload

    def head(
        self, more: bytes = b"", status: bytes = b"200 OK", length: int | None = None
    ) -> bytes:
        """Return an answer's head, with `length` or chunked."""
        framing = (
            b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        )
        kind = b"" if b"content-type:" in more else b"content-type: %s\r\n" % self.content_type
        return b"HTTP/1.1 %s\r\n%s%s%s\r\n\r\n" % (status, kind, more, framing)

    def open_body(self) -> tuple[bytes, bytes]:
        """Return a head and a framed body, to be cut somewhere."""
        if self.stream:
            events = b"".join(chunked(event) for event in self.events)
            return self.head(), events + b"0\r\n\r\n"
        return self.head(length=len(self.body)), self.body


def chunked(payload: bytes) -> bytes:
    """Return one chunk."""
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def measured(
    status: bytes, body: bytes, content_type: bytes = b"application/json", more: bytes = b""
) -> bytes:
    """Return an answer with its length."""
    return b"HTTP/1.1 %s\r\ncontent-type: %s\r\n%scontent-length: %d\r\n\r\n%s" % (
        status, content_type, more, len(body), body,
    )  # fmt: skip


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _error(code: int, message: str = "what happened") -> bytes:
    return _json({"error": {"message": message, "type": "E", "param": None, "code": code}})


HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
KINDS: dict[str, Callable[[Asked], Script]] = {}
BEFORE_READING = {"reset on accept": RESET, "close on accept": CLOSE}
"""Kinds that do not wait for a request."""
REFUSED = "refused"
"""The kind whose backends are ports that nobody listens on."""


def kind(name: str) -> Callable[[Callable[[Asked], Script]], Callable[[Asked], Script]]:
    """Register a fault."""

    def register(script: Callable[[Asked], Script]) -> Callable[[Asked], Script]:
        KINDS[name] = script
        return script

    return register


def _cut(part: float, end: Signal) -> Callable[[Asked], Script]:
    def script(asked: Asked) -> Script:
        head, body = asked.open_body()
        return [head + body[: int(len(body) * part)], end]

    return script


def _half(asked: Asked, end: Step) -> Script:
    """Return a proper beginning, a third of it, and then `end`."""
    if asked.stream:
        return [asked.head() + b"".join(chunked(event) for event in asked.events[:3]), end]
    return [asked.head(length=len(asked.body)) + asked.body[:60], end]


# --- connections ------------------------------------------------------------------------------

for _name, _signal in {"reset": RESET, "close": CLOSE}.items():
    KINDS[f"{_name} on accept"] = lambda _: []
    KINDS[f"{_name} after request"] = lambda _, end=_signal: [end]
    KINDS[f"{_name} in head"] = lambda asked, end=_signal: [asked.head()[:25], end]
    KINDS[f"{_name} after head"] = lambda asked, end=_signal: [asked.open_body()[0], end]
for _tenth in range(10):
    KINDS[f"{'reset' if _tenth % 2 else 'close'} at {_tenth * 10 + 5}% of body"] = _cut(
        _tenth / 10 + 0.05, RESET if _tenth % 2 else CLOSE
    )
KINDS[REFUSED] = lambda _: []
KINDS["stall before head"] = lambda _: [STALL]
KINDS["stall in head"] = lambda asked: [asked.head()[:25], STALL]
KINDS["stall after head"] = lambda asked: [asked.open_body()[0], STALL]
KINDS["stall in body"] = lambda asked: _half(asked, STALL)
KINDS["stall before end"] = lambda asked: [asked.framed()[:-5], STALL]
KINDS["slow close"] = lambda _: [0.3, CLOSE]

# --- statuses ---------------------------------------------------------------------------------

for _status in (b"429 Too Many", b"500 Error", b"502 Bad", b"503 Busy", b"504 Late", b"499 Gone"):
    KINDS[f"status {_status[:3].decode()}"] = lambda _, status=_status: [
        measured(status, _error(int(status[:3])), more=b"retry-after: 1\r\n")
    ]
KINDS["401"] = lambda _: [measured(b"401 No", _error(401))]
KINDS["404 of a router"] = lambda _: [measured(b"404 Not Found", b'{"detail":"Not Found"}')]
KINDS["400 of vLLM"] = lambda _: [measured(b"400 Bad Request", _error(400))]
KINDS["400 in HTML"] = lambda _: [measured(b"400 Bad Request", HTML, b"text/html")]
KINDS["503 in HTML"] = lambda _: [measured(b"503 Busy", HTML, b"text/html")]
KINDS["503 without a body"] = lambda _: [b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"]
KINDS["503 cut off"] = lambda _: [measured(b"503 Busy", _error(503))[:-10], CLOSE]
KINDS["204"] = lambda _: [b"HTTP/1.1 204 No Content\r\n\r\n"]
KINDS["redirect"] = lambda _: [measured(b"307 T", b"", more=b"location: http://127.0.0.1:1/\r\n")]

# --- bodies that are not what was asked for ---------------------------------------------------

KINDS["HTML"] = lambda _: [measured(b"200 OK", HTML, b"text/html")]
KINDS["empty body"] = lambda asked: [asked.framed(b"")]
KINDS["truncated JSON"] = lambda asked: [measured(b"200 OK", asked.body[:-20], asked.content_type)]
KINDS["wrong content type"] = lambda asked: [asked.framed(more=b"content-type: text/plain\r\n")]
KINDS["bad UTF-8"] = lambda asked: [asked.framed(asked.payload.replace(b"-mid", b"-m\xffd"))]
KINDS["JSON of another kind"] = lambda asked: [measured(b"200 OK", b"[1,2]", asked.content_type)]


@kind("the other mode")
def _(asked: Asked) -> Script:
    other = replace(asked, stream=not asked.stream)
    return [other.framed()]


@kind("error first")
def _(asked: Asked) -> Script:
    error = _error(500)
    return [asked.framed(b"data: " + error + b"\n\n" if asked.stream else error)]


@kind("error in the middle")
def _(asked: Asked) -> Script:
    if not asked.stream:
        return [asked.framed(_json({"choices": None, "error": {"message": "died", "code": 500}}))]
    error = b"data: " + _error(500) + b"\n\n"
    return [asked.framed(b"".join(asked.events[:3]) + error + b"data: [DONE]\n\n")]


# --- streams ----------------------------------------------------------------------------------


def _stream(name: str, change: Callable[[Asked], Script]) -> None:
    """Register a fault that only a stream can have; a unary answer to it is proper."""
    KINDS[name] = lambda asked: change(asked) if asked.stream else [asked.framed()]


def _pieces(asked: Asked, pieces: list[bytes], end: bytes = b"0\r\n\r\n") -> Script:
    """Return a stream with a pause after its head, so that pieces do not come all at once."""
    return [asked.head(), *(chunked(piece) for piece in pieces), end]


_stream("no [DONE]", lambda a: _pieces(a, a.events[:-1]))
_stream("no [DONE], closed", lambda a: [*_pieces(a, a.events[:-1], b""), CLOSE])
_stream("no finish_reason", lambda a: _pieces(a, [*a.events[:3], a.events[-1]]))
_stream("nothing after the text", lambda a: _pieces(a, a.events[:4]))
_stream("[DONE] first", lambda a: _pieces(a, [a.events[-1]]))
_stream("data after [DONE]", lambda a: _pieces(a, [*a.events, a.event(a.chunk({"content": "x"}))]))
_stream("comments only", lambda a: [a.head(), Endless(chunked(b": ping\n\n"), 0.1)])
_stream(
    "comments after content",
    lambda a: [a.head() + chunked(b"".join(a.events[:3])), Endless(chunked(b": ping\n\n"), 0.1)],
)
_stream(
    "half events after content",
    lambda a: [a.head() + chunked(b"".join(a.events[:3])), Endless(chunked(b"x"), 0.1)],
)
_stream("role chunks only", lambda a: [a.head(), Endless(chunked(a.events[0]), 0.1)])
_stream("CRLF", lambda a: [a.framed(a.payload.replace(b"\n", b"\r\n"))])
_stream("CR", lambda a: [a.framed(a.payload.replace(b"\n", b"\r"))])
_stream("no space after data:", lambda a: [a.framed(a.payload.replace(b"data: ", b"data:"))])
_stream("event and id lines", lambda a: [a.framed(a.payload.replace(b"data:", b"id: 1\ndata:"))])
_stream(
    "several data lines",
    lambda a: [a.framed(a.payload.replace(b',"created"', b',\ndata: "created"'))],
)
_stream("byte order mark", lambda a: [a.framed(b"\xef\xbb\xbf" + a.payload)])
_stream("JSON cut in an event", lambda a: _pieces(a, [*a.events[:3], b'data: {"id"\n\n']))
_amid = {
    "event: error": b'event: error\ndata: {"message":"died"}\n\n',
    "an error object": b'data: {"object":"error","message":"died","code":500}\n\n',
    "null choices": b'data: {"id":"c","object":"chat.completion.chunk","choices":null}\n\n',
    "JSON broken within": b'data: {"choices":[{"delta":{"content":"x"x"}}]}\n\n',
    "given up": b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}\n\n',
}
for _name, _event in _amid.items():
    _stream(_name, lambda a, event=_event: _pieces(a, [*a.events[:3], event, *a.events[3:]]))
_stream(
    "pings with data",
    lambda a: _pieces(a, [a.events[0], b'event: ping\ndata: {"type":"ping"}\n\n', *a.events[1:]]),
)
KINDS["no choices"] = lambda a: [
    a.framed() if a.stream else a.framed(_json({"id": a.id, "model": a.model, "choices": []}))
]
_PAD = b"x" * (20 << 20)
_stream(
    "a frame of 20 MB",
    lambda a: _pieces(
        a, [*a.events[:3], a.events[2].replace(b'"index":0', b'"index":0,"pad":"' + _PAD + b'"')]
    ),
)
_stream("a frame of 20 MB first", lambda a: _pieces(a, [b": " + _PAD + b"\n\n"]))
_stream(
    "endless stream",
    lambda a: [a.head() + chunked(a.events[1]), Endless(chunked(a.event(a.chunk({}))), 0.01)],
)

# --- framing ----------------------------------------------------------------------------------


@kind("split at every byte")
def _(asked: Asked) -> Script:
    return [bytes([byte]) for byte in asked.framed()]


@kind("unframed")
def _(asked: Asked) -> Script:
    return [
        b"HTTP/1.0 200 OK\r\ncontent-type: %s\r\n\r\n" % asked.content_type,
        asked.payload,
        CLOSE,
    ]


@kind("unframed, cut off")
def _(asked: Asked) -> Script:
    head = b"HTTP/1.0 200 OK\r\ncontent-type: %s\r\n\r\n" % asked.content_type
    return [head, asked.payload[: len(asked.payload) // 2], CLOSE]


@kind("too long a length")
def _(asked: Asked) -> Script:
    return [asked.head(length=len(asked.payload) + 10) + asked.payload, CLOSE]


@kind("too short a length")
def _(asked: Asked) -> Script:
    return [asked.head(length=len(asked.payload) - 10) + asked.payload]


@kind("two lengths")
def _(asked: Asked) -> Script:
    return [asked.head(b"content-length: 3\r\n", length=len(asked.payload)) + asked.payload]


@kind("length and chunks")
def _(asked: Asked) -> Script:
    return [asked.head(b"content-length: 3\r\n") + chunked(asked.payload) + b"0\r\n\r\n"]


@kind("chunked garbage")
def _(asked: Asked) -> Script:
    return [asked.head() + chunked(asked.payload[:200]) + b"zz\r\n" + asked.payload[200:]]


@kind("no HTTP")
def _(_: Asked) -> Script:
    return [b"\x00\xffSSH-2.0-no\r\n", CLOSE]


@kind("a head of a megabyte")
def _(asked: Asked) -> Script:
    return [asked.head(b"x-pad: " + b"x" * (1 << 20) + b"\r\n"), STALL]


@kind("endless head")
def _(_: Asked) -> Script:
    return [b"HTTP/1.1 200 OK\r\n", Endless(b"x-pad: " + b"x" * 1000 + b"\r\n")]


@kind("endless body")
def _(asked: Asked) -> Script:
    return [asked.head(), Endless(chunked(b"x" * 65536))]


@kind("a body of 20 MB")
def _(asked: Asked) -> Script:
    pad = b'"pad":"' + b"x" * (20 << 20) + b'",'
    return [
        asked.framed(asked.payload.replace(b'"object":"chat.completion"', pad + b'"object":""'))
    ]


@kind("interim answers")
def _(asked: Asked) -> Script:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    return [b"HTTP/1.1 100 Continue\r\n\r\n" + early, 0.01, early + asked.framed()]


@kind("endless interim answers")
def _(_: Asked) -> Script:
    return [Endless(b"HTTP/1.1 100 Continue\r\n\r\n")]


@kind("switching protocols")
def _(asked: Asked) -> Script:
    return [b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + asked.payload]


@kind("gzip")
def _(asked: Asked) -> Script:
    return [asked.framed(gzip.compress(asked.payload), b"content-encoding: gzip\r\n")]


@kind("gzip, cut off")
def _(asked: Asked) -> Script:
    return [asked.framed(gzip.compress(asked.payload)[:-9], b"content-encoding: gzip\r\n")]


@kind("gzip that is none")
def _(asked: Asked) -> Script:
    return [asked.framed(more=b"content-encoding: gzip\r\n")]


@kind("br")
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
