"""Decoding compressed request bodies (RFC 9110's gzip and deflate, RFC 8878's zstd) within a limit.

Rules: never more than the limit is produced, however small the body; a body that ends early or goes
on after its end is refused; what takes long is done in a thread.
"""

import asyncio
import importlib
import sys
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Protocol

from gateway.service.client.errors import BadRequest, TooLarge

CODINGS: Final = {
    b"gzip": "gzip",
    b"x-gzip": "gzip",
    b"deflate": "deflate",
    b"zstd": "zstd",
}
_QUICK_BYTES: Final = 1 << 20
"""What is decoded in the event loop: a millisecond or two."""
_WINDOW_LOG: Final = 23
"""RFC 9659: no zstd body needs a window over 8 MB."""
_MOST_MEMBERS: Final = 64
"""Each costs a copy of what is left."""
_GZIP_WBITS: Final = 31
_ZLIB_WBITS: Final = 15
_RAW_WBITS: Final = -15


class _Decoder(Protocol):
    """What zlib and zstd have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


async def decode_body(body: bytes, coding: str, limit: int) -> bytes:
    """Return a body decoded. Raises TooLarge over `limit` bytes, BadRequest for a broken body."""
    if limit > _QUICK_BYTES:
        try:
            return _decode(body, coding, _QUICK_BYTES)
        except TooLarge:
            return await asyncio.to_thread(_decode, body, coding, limit)
    return _decode(body, coding, limit)


def _decode(body: bytes, coding: str, limit: int) -> bytes:
    make, broken = _find_decoder(coding, body)
    pieces: list[bytes] = []
    left, size = body, 0
    try:
        # gzip and zstd bodies may be several members one after another.
        while left:
            if len(pieces) == _MOST_MEMBERS:
                raise BadRequest(f"the body is more than {_MOST_MEMBERS} members of {coding}")
            decoder = make()
            piece = decoder.decompress(left, limit + 1 - size)
            size += len(piece)
            if size > limit:
                raise TooLarge(f"the body is over {limit} bytes once decoded")
            pieces.append(piece)
            if not decoder.eof:
                raise BadRequest(f"the body is not {coding}: it ends early")
            left = decoder.unused_data
    except broken as error:
        raise BadRequest(f"the body is not {coding}: {error}") from None
    return b"".join(pieces)


def _find_decoder(coding: str, body: bytes) -> tuple[Callable[[], _Decoder], type[Exception]]:
    if coding == "zstd":
        zstd = _load_zstd()
        options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
        return (lambda: zstd.ZstdDecompressor(options=options)), zstd.ZstdError
    wbits = _GZIP_WBITS
    if coding == "deflate":
        # zlib's frame by the standard; some send bare deflate, as browsers have always taken it.
        framed = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0  # noqa: PLR2004
        wbits = _ZLIB_WBITS if framed else _RAW_WBITS
    return (lambda: zlib.decompressobj(wbits)), zlib.error


@cache
def _load_zstd() -> Any:
    """Load zstd at the first body that needs it: Python's own from 3.14 on, its backport before."""
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return importlib.import_module(name)
