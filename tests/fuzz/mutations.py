"""Bytes made of seeds: cut, doubled, spliced, or with some other bytes in them.

And JSON that stays JSON: most readers refuse what is none at its first wrong byte, so that nothing
behind it would be tried.
"""

import copy
import json
import random
from pathlib import Path
from typing import Any, Final

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


_ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, -(2**63), 10**30, 0.0, -0.5, 1e-300, 1e300,
    "", "a", "\x00", "\u00e9\U0001f600", "x" * 300, [], {}, [[]], "9" * 40,
)  # fmt: skip


def mutate_bytes(seed: bytes, other: bytes, drawn: random.Random) -> bytes:
    """Return a seed changed as JSON, where it is some, half the time, and else as bytes."""
    found = mutate_json(seed, drawn) if drawn.random() < 0.5 else None
    return mutate_seed(seed, other, drawn) if found is None else found


def mutate_json(seed: bytes, drawn: random.Random) -> bytes | None:
    """Return JSON, or JSON lines, with one to four values changed; None where it is neither."""
    try:
        lines = [json.loads(line) for line in seed.splitlines() or [b""]]
    except ValueError:
        return None
    for _ in range(drawn.randint(1, 4)):
        if drawn.random() < 0.2:
            lines.insert(drawn.randrange(len(lines) + 1), copy.deepcopy(drawn.choice(lines)))
            continue
        at = drawn.randrange(len(lines))
        lines[at] = _change_value(lines[at], drawn)
    return "\n".join(json.dumps(line, separators=(",", ":")) for line in lines).encode()


def _change_value(value: Any, drawn: random.Random) -> Any:
    """Return a value with something in it changed, at a depth that is drawn."""
    if not isinstance(value, list | dict) or not value:
        return _draw_value(value, drawn)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = drawn.choice(list(keys))
    match drawn.randrange(8):
        case 0:
            del value[key]
        case 1:
            value[key] = copy.deepcopy(drawn.choice(_ODD_VALUES))
        case 2 if isinstance(value, list):
            value.insert(key, copy.deepcopy(drawn.choice(value)))
        case 3:
            other = drawn.choice(list(keys))
            value[key], value[other] = value[other], value[key]
        case _:
            value[key] = _change_value(value[key], drawn)
    return value


def _draw_value(value: Any, drawn: random.Random) -> Any:
    """Return another value, near this one where it is a number."""
    if isinstance(value, int | float) and drawn.random() < 0.5:
        return drawn.choice((value + 1, value - 1, -value, value * 10, value * 1000, value / 3))
    return copy.deepcopy(drawn.choice(_ODD_VALUES))
