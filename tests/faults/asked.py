"""A request as a backend sees it, and its proper answer: a body, or events, in HTTP's framing.

An answer repeats the request's own word, so that everyone can tell his answer from another's.
"""

import json
from dataclasses import dataclass

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
        return encode_json({**whole, "choices": [choice], "usage": _USAGE})

    def chunk(self, delta: dict, finish: str | None = None) -> dict:
        """Return a stream's chunk."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        kind = "chat.completion.chunk"
        whole = {"id": self.id, "object": kind, "created": 1, "model": self.model}
        return {**whole, "choices": [choice]}

    @staticmethod
    def event(value: dict) -> bytes:
        """Return a server-sent event."""
        return b"data: " + encode_json(value) + b"\n\n"

    @property
    def given_up(self) -> bytes:
        """The event of an answer that vLLM gave up."""
        return self.event(self.chunk({}, "abort"))

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


def padded(data: bytes, pad_bytes: int) -> bytes:
    """Return a body or an event whose JSON has a member of so many bytes more."""
    return data.replace(b"{", b'{"pad":"' + b"x" * pad_bytes + b'",', 1)


def measured(
    status: bytes, body: bytes, content_type: bytes = b"application/json", more: bytes = b""
) -> bytes:
    """Return an answer with its length."""
    return b"HTTP/1.1 %s\r\ncontent-type: %s\r\n%scontent-length: %d\r\n\r\n%s" % (
        status, content_type, more, len(body), body,
    )  # fmt: skip


def encode_json(value: object) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def encode_error(code: int, message: str = "what happened") -> bytes:
    """Return an error's body in OpenAI's shape."""
    return encode_json({"error": {"message": message, "type": "E", "param": None, "code": code}})
