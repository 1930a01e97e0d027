"""Bodies that a backend, or a proxy before it, compressed although it was asked not to."""

import zlib
from typing import Final, Self

_MOST_BYTES_PER_PIECE: Final = 16 * 1024 * 1024
"""What one read may unfold to; more than 64 times as much as was read is no text."""
_EITHER_HEADER: Final = 32 + zlib.MAX_WBITS


class BodyDecoder:
    """Decompresses gzip, or what is called deflate, piece by piece."""

    __slots__ = ("_begun", "_zlib")

    def __init__(self) -> None:
        self._begun = False
        self._zlib = zlib.decompressobj(wbits=_EITHER_HEADER)

    @classmethod
    def of(cls, coding: bytes) -> Self | None:
        """Return a decoder for a Content-Encoding in lower case, or None: it is not known."""
        return cls() if coding in {b"gzip", b"x-gzip", b"deflate"} else None

    @property
    def whole(self) -> bool:
        """Whether the compressed body has come to its end, or there is none."""
        return self._zlib.eof or not self._begun

    def decode(self, data: bytes) -> bytes:
        """Return what a piece unfolds to, maybe nothing yet. Raises ValueError."""
        self._begun = True
        try:
            unfolded = self._zlib.decompress(data, _MOST_BYTES_PER_PIECE)
        except zlib.error as error:
            raise ValueError(f"a compressed body that is none: {error}") from None
        if self._zlib.unconsumed_tail:
            raise ValueError("a compressed body that unfolds beyond all measure")
        return unfolded
