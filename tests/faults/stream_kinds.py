"""Faults that only a stream can have; a unary answer to them is proper."""

from tests.faults.asked import Asked, chunked, encode_json, padded
from tests.faults.script import CLOSE, Endless, FaultKinds, Kind, Script

KINDS = FaultKinds()


def _stream(name: str, change: Kind) -> None:
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
    lambda a: [a.framed(b"".join(e.replace(b',"', b',\ndata: "', 1) for e in a.events))],
)
_stream("byte order mark", lambda a: [a.framed(b"\xef\xbb\xbf" + a.payload)])
_stream("JSON cut in an event", lambda a: _pieces(a, [*a.events[:3], b'data: {"id"\n\n']))
_amid = {
    "event: error": b'event: error\ndata: {"message":"died"}\n\n',
    "an error object": b'data: {"object":"error","message":"died","code":500}\n\n',
    "null choices": b'data: {"id":"c","object":"chat.completion.chunk","choices":null}\n\n',
    "JSON broken within": b'data: {"choices":[{"delta":{"content":"x"x"}}]}\n\n',
}
for _name, _event in _amid.items():
    _stream(_name, lambda a, event=_event: _pieces(a, [*a.events[:3], event, *a.events[3:]]))
_stream("given up", lambda a: _pieces(a, [*a.events[:3], a.given_up, *a.events[3:]]))
_stream(
    "pings with data",
    lambda a: _pieces(a, [a.events[0], b'event: ping\ndata: {"type":"ping"}\n\n', *a.events[1:]]),
)
KINDS["no choices"] = lambda a: [
    a.framed() if a.stream else a.framed(encode_json({"id": a.id, "model": a.model, "choices": []}))
]
_PAD_BYTES = 20 << 20
_stream(
    "a frame of 20 MB",
    lambda a: _pieces(a, [*a.events[:3], padded(a.events[2], _PAD_BYTES)]),
)
_stream("a frame of 20 MB first", lambda a: _pieces(a, [b": " + b"x" * _PAD_BYTES + b"\n\n"]))
_stream(
    "endless stream",
    lambda a: [a.head() + chunked(a.events[1]), Endless(chunked(a.event(a.chunk({}))), 0.01)],
)
