"""Faults of connections, statuses and bodies."""

from dataclasses import replace

from tests.faults.asked import Asked, chunked, encode_error, encode_json, measured
from tests.faults.script import CLOSE, RESET, STALL, FaultKinds, Kind, Script, Signal, Step

HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
KINDS = FaultKinds()
BEFORE_READING = {"reset on accept": RESET, "close on accept": CLOSE}
"""Kinds that do not wait for a request."""
REFUSED = "refused"
"""The kind whose backends are ports that nobody listens on."""


def _cut(part: float, end: Signal) -> Kind:
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
        measured(status, encode_error(int(status[:3])), more=b"retry-after: 1\r\n")
    ]
KINDS["401"] = lambda _: [measured(b"401 No", encode_error(401))]
KINDS["404 of a router"] = lambda _: [measured(b"404 Not Found", b'{"detail":"Not Found"}')]
KINDS["400 of vLLM"] = lambda _: [measured(b"400 Bad Request", encode_error(400))]
KINDS["400 in HTML"] = lambda _: [measured(b"400 Bad Request", HTML, b"text/html")]
KINDS["503 in HTML"] = lambda _: [measured(b"503 Busy", HTML, b"text/html")]
KINDS["503 without a body"] = lambda _: [b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"]
KINDS["503 cut off"] = lambda _: [measured(b"503 Busy", encode_error(503))[:-10], CLOSE]
KINDS["204"] = lambda _: [b"HTTP/1.1 204 No Content\r\n\r\n"]
KINDS["redirect"] = lambda _: [measured(b"307 T", b"", more=b"location: http://127.0.0.1:1/\r\n")]

# --- bodies that are not what was asked for ---------------------------------------------------

KINDS["HTML"] = lambda _: [measured(b"200 OK", HTML, b"text/html")]
KINDS["empty body"] = lambda asked: [asked.framed(b"")]
KINDS["truncated JSON"] = lambda asked: [measured(b"200 OK", asked.body[:-20], asked.content_type)]
KINDS["wrong content type"] = lambda asked: [asked.framed(more=b"content-type: text/plain\r\n")]
KINDS["bad UTF-8"] = lambda asked: [asked.framed(asked.payload.replace(b"-mid", b"-m\xffd"))]
KINDS["JSON of another kind"] = lambda asked: [measured(b"200 OK", b"[1,2]", asked.content_type)]


@KINDS.kind("the other mode")
def _(asked: Asked) -> Script:
    other = replace(asked, stream=not asked.stream)
    return [other.framed()]


@KINDS.kind("error first")
def _(asked: Asked) -> Script:
    error = encode_error(500)
    return [asked.framed(b"data: " + error + b"\n\n" if asked.stream else error)]


@KINDS.kind("error in the middle")
def _(asked: Asked) -> Script:
    if not asked.stream:
        return [
            asked.framed(encode_json({"choices": None, "error": {"message": "died", "code": 500}}))
        ]
    error = b"data: " + encode_error(500) + b"\n\n"
    return [asked.framed(b"".join(asked.events[:3]) + error + b"data: [DONE]\n\n")]
