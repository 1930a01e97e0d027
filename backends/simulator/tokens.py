"""A tokeniser of the simulator's own: cheap, bounded, and reversible without a vocabulary.

A token is a piece of at most 6 UTF-8 bytes: up to five letters with the space before them, a
punctuation mark, a run of blanks, or part of a non-ASCII run. English comes out near 1.4 tokens per
word, as with real vocabularies. A token's id holds its own bytes, so no table is needed.
"""

import re

_PIECE = re.compile(rb" ?[A-Za-z0-9_]{1,5}|[\x80-\xff]{1,6}|\s{1,6}|[\x00-\x7f]")
_WHOLE_BYTES = 16_384  # counted in full up to here; above it a sample stands for the rest
_SAMPLES = 8
_MAX_ID_BYTES = 7
END_OF_TEXT = 1
"""The id of the token that ends a text and has none itself."""

# What a chat template adds, in tokens.
PER_MESSAGE = 4
PER_CHAT = 3
PER_IMAGE = 256


def count_pieces(text: str) -> int:
    """How many tokens a text has, in time bounded whatever its length."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= _WHOLE_BYTES:
        return len(_PIECE.findall(data))
    size = _WHOLE_BYTES // _SAMPLES
    stride = (len(data) - size) / (_SAMPLES - 1)
    found = sum(
        len(_PIECE.findall(data, start, start + size))
        for start in (round(stride * k) for k in range(_SAMPLES))
    )
    return round(found * len(data) / _WHOLE_BYTES)


def split_text(text: str) -> list[str]:
    """The text in token-sized pieces that join to it again (cut between characters)."""
    return re.findall(r" ?[A-Za-z0-9_]{1,5}|[^\x00-\x7f]{1,2}|\s{1,6}|[\x00-\x7f]", text)


def encode_text(text: str) -> list[int]:
    """Token ids of a text: each is its bytes after a marker byte, below 2**53 as JSON needs."""
    data = text.encode("utf-8", "surrogatepass")
    return [int.from_bytes(b"\x01" + piece, "big") for piece in _PIECE.findall(data)]


def encode_piece(piece: str) -> int:
    """The one id of a generated token, of which it keeps what an id can hold."""
    return int.from_bytes(b"\x01" + piece.encode()[: _MAX_ID_BYTES - 1], "big")


def decode_ids(ids: list[int]) -> str:
    """The text of token ids; an id that `encode_text` cannot have made is U+FFFD."""
    return b"".join(map(_decode_id, ids)).decode("utf-8", "replace")


def _decode_id(token: int) -> bytes:
    if token == END_OF_TEXT:
        return b""
    raw = token.to_bytes((max(token, 0).bit_length() + 7) // 8, "big") if token > 0 else b""
    if not (1 < len(raw) <= _MAX_ID_BYTES and raw[0] == 1):
        return "\N{REPLACEMENT CHARACTER}".encode()
    return raw[1:]
