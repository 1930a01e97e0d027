"""A long text of a JSON body, looked at in places: it is not decoded to be counted or read.

Rules: what stands between a string's quotes is cut where white space begins, as a decoded text is
(`gateway/tokens.py`), and otherwise where neither an escape nor a character is cut in two. Only
what was cut out is decoded.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, cast

import msgspec
from msgspec import Raw

from backends.sse import ABSENT, UNREADABLE

LEAST_BYTES: Final = 65_536
"""Shorter ones are decoded: that costs less than looking for places."""

_HEAD_CHARS, _TAIL_CHARS = 6_144, 2_048
"""What models of the text read of a long one (`gateway/scheduling/text_features.py`)."""
_WIDEST_BYTES = 6
_WIDTHS_BYTES = (1, 2, _WIDEST_BYTES)
"""Of a character in JSON; the widest is an escape of the form \\uXXXX."""
_WORD_BYTES = 48
_QUOTE, _U = b'"u'
_LEADING_BITS, _CONTINUES = 0xC0, 0x80
_MOST_BACKSLASHES = 64
# A blank or an escaped one, after what is neither.
_SPACE_BEGINS = re.compile(rb"(?<! )(?<!\\[ntr])(?: |(?<!\\)\\[ntr])")
_LOW_SURROGATE = re.compile(rb"\\u[dD][c-fC-F]")
# Steps of the golden ratio: places within the strata that repeat with no period of the text's.
_GOLDEN = 0.618033988749895

_text = msgspec.json.Decoder(str)
_any = msgspec.json.Decoder()


class CutText(str):
    """Both ends of a long text, in the place of all of it: a beginning, a blank and an end."""

    __slots__ = ("parts",)
    parts: tuple[str | memoryview, ...]
    """What it was cut from: what stands between the quotes in JSON; or several, lines apart."""

    @property
    def raw(self) -> memoryview:
        """The whole as it stands in JSON, between the quotes; of one that was not joined."""
        return cast("memoryview", self.parts[0])

    def decode_whole(self) -> str:
        """Return all of the text; where that cannot be decoded, its ends."""
        try:
            return "\n".join(
                part if isinstance(part, str) else decode_pieces([part]) for part in self.parts
            )
        except UNREADABLE:
            return str(self)


def cut_text(raw: Raw) -> CutText | None:
    """Return both ends of a JSON string that is long; None where it is short, or no string.

    None too where its ends cannot be decoded: then it is to be decoded as a whole, or not at all.
    """
    whole = memoryview(raw)
    if len(whole) < LEAST_BYTES or whole[0] != _QUOTE:
        return None
    inside = whole[1:-1]
    try:
        return _make_cut(_read_ends(inside), (inside,))
    except UNREADABLE:
        return None


def _read_ends(inside: memoryview) -> str:
    head = tail = ""
    for width in _WIDTHS_BYTES:
        if len(head) < _HEAD_CHARS:
            head = decode_pieces([inside[: _find_boundary(inside, _HEAD_CHARS * width)]])
        if len(tail) < _TAIL_CHARS:
            begin = _find_boundary(inside, len(inside) - _TAIL_CHARS * width)
            tail = decode_pieces([inside[begin:]])
    return f"{head[:_HEAD_CHARS]} {tail[-_TAIL_CHARS:]}"


def read_text(raw: Raw, *, cuts: bool = True) -> str:
    """Return a JSON value that is a text, both ends of a long one; "" where it cannot be read."""
    if raw is ABSENT:
        return ""
    try:
        found = (cut_text(raw) if cuts else None) or _any.decode(raw)
    except UNREADABLE:
        return ""
    return found if isinstance(found, str) else ""


def join_texts(texts: Sequence[str]) -> str:
    """Return texts as one, a line break between any two; of long ones their ends."""
    if len(texts) == 1:
        return texts[0]
    joined = "\n".join(texts)
    if not any(isinstance(text, CutText) for text in texts):
        return joined
    parts: list[str | memoryview] = []
    for text in texts:
        parts += text.parts if isinstance(text, CutText) else (text,)
    return _make_cut(joined, tuple(parts))


def measure_size(text: str) -> int:
    """Return the characters of a text; of a cut one the bytes of the whole."""
    return len(text.raw) if isinstance(text, CutText) else len(text)


def spread_slices(size: int, slices: int, width: int) -> Iterator[int]:
    """Yield where a slice begins in each of so many equal strata."""
    stratum = size / slices
    for index in range(slices):
        offset = (index * _GOLDEN) % 1.0
        yield int(index * stratum + offset * max(0.0, stratum - width))


def cut_slices(raw: memoryview, slices: int, slice_bytes: int) -> list[memoryview]:
    """Return a slice of each of so many equal strata of a text in JSON.

    Each begins where a word does and ends where one ends, so that no word is counted in part.
    """
    pieces = []
    for start in spread_slices(len(raw), slices, slice_bytes):
        begin = _find_space(raw, start)
        pieces.append(raw[begin : _find_space(raw, begin + slice_bytes)])
    return pieces


def decode_pieces(pieces: Sequence[memoryview]) -> str:
    """Return pieces of a text in JSON as one text. Raises DecodeError, UnicodeDecodeError."""
    return _text.decode(b"".join((b'"', *pieces, b'"')))


def _make_cut(ends: str, parts: tuple[str | memoryview, ...]) -> CutText:
    made = CutText(ends)
    made.parts = parts
    return made


def _find_space(raw: memoryview, start: int) -> int:
    """Return the first place from `start` on where white space begins, or a boundary near it."""
    found = _SPACE_BEGINS.search(raw, start, start + _WORD_BYTES)
    return found.start() if found else _find_boundary(raw, start)


def _find_boundary(raw: memoryview, at: int) -> int:
    """Return the first place from `at` on that is within no escape and within no character.

    A pair of escapes that is one character is not parted either. Of a run of backslashes too long
    to be looked at, parity is anybody's guess: then the piece may not be decodable.
    """
    size = len(raw)
    at = min(at, size)
    while at < size and raw[at] & _LEADING_BITS == _CONTINUES:
        at += 1
    before = bytes(raw[max(0, at - _MOST_BACKSLASHES) : at])
    # What an escape has behind its backslash is none, unless it is one of a backslash.
    last = before.rfind(b"\\", max(0, len(before) - _WIDEST_BYTES + 1))
    if last >= 0:
        run = before[: last + 1]
        if (len(run) - len(run.rstrip(b"\\"))) % 2:
            begin = at - len(before) + last
            at = max(at, begin + (_WIDEST_BYTES if raw[begin + 1] == _U else 2))
    if _LOW_SURROGATE.match(raw, at):
        at += _WIDEST_BYTES
    return min(at, size)
