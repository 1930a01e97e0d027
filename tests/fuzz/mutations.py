"""Bytes made of seeds: cut, doubled, spliced, or with some other bytes in them."""

import random
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"
_ODD: Final = (
    b"\x00", b"\xff", b"\r\n", b"\n\n", b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"-1",
    b"0", b"1e400", b"NaN", b"null", b"true", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"${A", b"&a",
    b"*a", b"data: ", b"99999999999999999999", b"content-length: ", b"\r\n\r\n", b"\xc2\xb2",
)  # fmt: skip


def list_seeds(target: str) -> list[bytes]:
    """Return a target's seeds, the smallest first; what was found before is among them."""
    found = sorted((CORPUS / target).iterdir(), key=lambda path: path.stat().st_size)
    return [path.read_bytes() for path in found]


def mutate_seed(seed: bytes, other: bytes, drawn: random.Random) -> bytes:
    """Return a seed that was changed in one to eight places; `other` is one to splice with."""
    data = bytearray(seed)
    for _ in range(drawn.randint(1, 8)):
        at = drawn.randrange(len(data) + 1)
        till = min(len(data), at + drawn.choice((1, 1, 2, 4, 16, 64)))
        match drawn.randrange(6):
            case 0:
                del data[at:till]
            case 1:
                data[at:at] = drawn.choice(_ODD)
            case 2:
                data[at:till] = drawn.choice(_ODD)
            case 3:
                data[at:at] = data[at:till] * drawn.randint(1, 20)
            case 4:
                data[at:till] = drawn.randbytes(till - at)
            case _:
                start = drawn.randrange(len(other) + 1)
                data[at:at] = other[start : start + drawn.randint(1, 64)]
    return bytes(data)
