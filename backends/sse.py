"""Server-sent events as bytes: whole events in, whole events out, nothing held longer than needed.

What stands inside a JSON string has its quotes escaped, so `"usage":{` with bare quotes can only
be a member; that is what makes looking for it in raw bytes safe.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from backends.errors import InvalidResponse, ResponseTooLarge

USAGE = b'"usage":{'
FINGERPRINT = b'"system_fingerprint":'
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DONE = b"[DONE]"
DONE_EVENT = b"data: [DONE]\n\n"

UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What decoding bytes from elsewhere may raise; bad UTF-8 comes as Python's own error."""

ABSENT = Raw(b"")
"""Default of a raw member that is not there; msgspec has no union with Raw."""

_SEPARATOR = b"\n\n"
_MOST_TOKENS = 100_000_000
_MAX_EVENT_BYTES = 16 * 1024 * 1024


class EventSplitter:
    """Cuts a byte stream after its last whole event and keeps the rest; looks at a byte once."""

    __slots__ = ("_held_bytes", "_held_cr", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._held_cr = False

    def feed_chunk(self, chunk: bytes) -> bytes:
        """Return all events that are whole now, possibly none.

        Raises ResponseTooLarge on a giant one.
        """
        if self._held_cr or b"\r" in chunk:
            chunk = self._with_lf(chunk)
        pieces = self._pieces
        if pieces:
            if pieces[-1].endswith(b"\n"):
                # Half a separator may stand there.
                pieces[-1] = pieces[-1][:-1]
                self._held_bytes -= 1
                chunk = b"\n" + chunk
        elif chunk.endswith(_SEPARATOR):
            return chunk
        end = chunk.rfind(_SEPARATOR)
        if end < 0:
            self._hold(chunk)
            return b""
        end += len(_SEPARATOR)
        whole = chunk[:end]
        if pieces:
            whole = b"".join((*pieces, whole))
            pieces.clear()
            self._held_bytes = 0
        self._hold(chunk[end:])
        return whole

    def _hold(self, rest: bytes) -> None:
        if rest:
            self._pieces.append(rest)
            self._held_bytes += len(rest)
            if self._held_bytes > _MAX_EVENT_BYTES:
                raise ResponseTooLarge(f"an event of over {_MAX_EVENT_BYTES} bytes")

    def _with_lf(self, chunk: bytes) -> bytes:
        """Rewrite CRLF and CR, line ends that the standard allows, to the LF that vLLM sends."""
        if self._held_cr:
            chunk = b"\r" + chunk
        self._held_cr = chunk.endswith(b"\r")
        chunk = chunk[:-1] if self._held_cr else chunk
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


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

    index: int | None = 0
    delta: dict[str, Raw] | None = None
    text: str | None = None
    finish_reason: str | None = None


class StreamChunk(Struct):
    """The members of a chunk that the gateway looks at."""

    id: Any = None
    object: Any = None
    created: Any = None
    model: str | None = None
    choices: list[ChunkChoice] | UnsetType | None = UNSET
    usage: TokenUsage | None = None
    metrics: Raw = ABSENT
    error: Raw = ABSENT
    system_fingerprint: Raw = ABSENT
    type: Any = None
    detail: Raw = ABSENT


class TokenChoice(Struct):
    """What tells a choice that goes on from one that has finished."""

    index: int | None = 0
    finish_reason: str | None = None


class TokenChunk(Struct):
    """As much of a chunk as tells a mere token from all else."""

    choices: list[TokenChoice] | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT


_decoder = msgspec.json.Decoder(StreamChunk)
_token_decoder = msgspec.json.Decoder(TokenChunk)
_EMPTY = frozenset({b"null", b'""', b"[]", b"{}"})


def split_events(block: bytes) -> list[bytes]:
    """Split whole events apart, each with its separator."""
    return [part + _SEPARATOR for part in block.split(_SEPARATOR) if part]


def is_text(data: bytes) -> bool:
    """Tell whether bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def extract_payload(event: bytes) -> bytes:
    """Return what stands behind `data:`, several such lines joined; b"" where there is none."""
    if event.startswith(b"data:") and event.find(b"\n", 5, -2) < 0:
        return event[5:].strip()
    # A comment or another field may stand above it.
    lines = (line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(lines)


def decode_chunk(data: bytes) -> StreamChunk:
    """Decode an event's payload. Raises InvalidResponse."""
    try:
        if not data.isascii():
            data.decode()  # msgspec looks at the members it wants alone
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise InvalidResponse(f"an event that is not JSON as vLLM sends it: {error}") from None


def find_token_index(data: bytes) -> int | None:
    """Return the index of the one choice that goes on; None where it is not a mere token.

    What is no whole JSON or no UTF-8 is none.
    """
    if not data.isascii() and not is_text(data):
        return None
    try:
        parsed = _token_decoder.decode(data)
    except UNREADABLE:
        return None
    choices = parsed.choices
    if not choices or len(choices) > 1 or choices[0].finish_reason:
        return None
    return (choices[0].index or 0) if parsed.usage is ABSENT and parsed.error is ABSENT else None


def is_error(member: Raw) -> bool:
    """Tell whether an `error` member is there and says something."""
    return member is not ABSENT and says_something(member)


def says_something(member: Raw) -> bool:
    """Tell whether a member is there and is not null."""
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
