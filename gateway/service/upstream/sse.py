"""Server-sent events as bytes: whole events in, whole events out, nothing held longer than needed.

What stands inside a JSON string has its quotes escaped, so `"usage":{` with bare quotes can only
be a member; that is what makes looking for it in raw bytes safe.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from backends.errors import InvalidResponse, ResponseTooLarge

USAGE = b'"usage":{'
USAGE_SPACED = b'"usage": {'
ERROR = b'"error"'
DONE = b"[DONE]"
DONE_EVENT = b"data: [DONE]\n\n"

UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What decoding a backend's bytes may raise; bad UTF-8 comes as Python's own error."""

ABSENT = Raw(b"")
"""Default of a raw member that is not there; msgspec has no union with Raw."""

_SEPARATOR = b"\n\n"
_MOST_TOKENS = 100_000_000
_MAX_EVENT_BYTES = 16 * 1024 * 1024


class EventSplitter:
    """Cuts a byte stream after its last whole event and keeps the rest."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def feed_chunk(self, chunk: bytes) -> bytes:
        """Return all events that are whole now, possibly none. Raises Oversized on a giant one."""
        if self._tail:
            chunk = self._tail + chunk
            self._tail = b""
        if chunk.endswith(_SEPARATOR):
            return chunk
        if b"\r\n" in chunk:
            return self._feed_crlf(chunk)
        cut = chunk.rfind(_SEPARATOR) + 2
        if cut == 1:
            cut = 0
        self._tail = chunk[cut:]
        if len(self._tail) > _MAX_EVENT_BYTES:
            raise ResponseTooLarge(f"an event of over {_MAX_EVENT_BYTES} bytes")
        return chunk[:cut]

    def _feed_crlf(self, chunk: bytes) -> bytes:
        """Rewrite CRLF line ends, which the standard allows, to the LF that vLLM sends."""
        held = b"\r" if chunk.endswith(b"\r") else b""
        whole = self.feed_chunk(chunk[: len(chunk) - len(held)].replace(b"\r\n", b"\n"))
        self._tail += held
        return whole


class TokenUsage(Struct):
    """OpenAI's token counts; what a server leaves out, or cannot be, is 0 or None."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.prompt_tokens <= _MOST_TOKENS:
            self.prompt_tokens = 0
        if not 0 <= (self.completion_tokens or 0) <= _MOST_TOKENS:
            self.completion_tokens = None

    @property
    def cached_tokens(self) -> int | None:
        """How much of the prompt came from vLLM's prefix cache, where it says so."""
        cached = (self.prompt_tokens_details or {}).get("cached_tokens")
        if not isinstance(cached, int) or isinstance(cached, bool):
            return None
        return cached if 0 <= cached <= self.prompt_tokens else None


class ChunkChoice(Struct):
    """What a chunk says of one choice; text and delta are for the two kinds of completion."""

    delta: dict[str, Raw] | None = None
    text: str | None = None
    finish_reason: str | None = None


class StreamChunk(Struct):
    """The members of a chunk that the gateway looks at."""

    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    choices: list[ChunkChoice] | None = None
    usage: TokenUsage | None = None
    metrics: Raw = ABSENT
    error: Raw = ABSENT


_decoder = msgspec.json.Decoder(StreamChunk)
_EMPTY = frozenset({b"null", b'""', b"[]", b"{}"})


def split_events(block: bytes) -> list[bytes]:
    """Split whole events apart, each with its separator."""
    return [part + _SEPARATOR for part in block.split(_SEPARATOR) if part]


def extract_payload(event: bytes) -> bytes:
    """Return what stands behind `data:`; b"" where there is none."""
    if event.startswith(b"data:"):
        return event[5:].strip()
    # A comment or another field may stand above it.
    _, found, data = event.partition(b"\ndata:")
    return data.strip() if found else b""


def decode_chunk(data: bytes) -> StreamChunk:
    """Decode an event's payload. Raises BadAnswer."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise InvalidResponse(f"an event that is not JSON as vLLM sends it: {error}") from None


def is_error(member: Raw) -> bool:
    """Tell whether an `error` member is there and says something."""
    return bytes(member) not in (b"", b"null")


def has_content(event: StreamChunk) -> bool:
    """Tell whether a chunk carries something of the answer, not just the role that opens it."""
    for choice in event.choices or ():
        if choice.text or choice.finish_reason:
            return True
        for name, value in (choice.delta or {}).items():
            if name != "role" and bytes(value) not in _EMPTY:
                return True
    return False
