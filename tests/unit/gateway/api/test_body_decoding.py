"""Compressed request bodies: decoded within the limit, whatever they claim."""

import gzip
import importlib
import sys
import zlib

import pytest

from gateway.api.body_decoding import CODINGS, decode_body
from gateway.service.client.errors import BadRequest, TooLarge

zstd = importlib.import_module(
    "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
)
TEXT = b'{"model":"auto","messages":[]}' * 50


def raw_deflate(data):
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


ENCODE = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd.compress),
]
LIMITS = [len(TEXT), 32 << 20]


@pytest.mark.parametrize(("coding", "encode"), ENCODE)
@pytest.mark.parametrize("limit", LIMITS)
async def test_what_was_encoded_comes_back(coding, encode, limit):
    assert await decode_body(encode(TEXT), coding, limit) == TEXT


@pytest.mark.parametrize(("coding", "encode"), ENCODE)
async def test_what_is_too_large_for_the_event_loop_comes_back_as_well(coding, encode):
    large = bytes(range(256)) * (3 << 12)
    assert await decode_body(encode(large), coding, len(large)) == large


@pytest.mark.parametrize(("coding", "encode"), ENCODE)
@pytest.mark.parametrize("size", [len(TEXT) + 1, 8 << 20])
async def test_a_byte_over_the_limit_is_too_large(coding, encode, size):
    with pytest.raises(TooLarge, match="once decoded"):
        await decode_body(encode(b" " * size), coding, size - 1)


@pytest.mark.parametrize(("coding", "encode"), ENCODE)
async def test_a_body_that_ends_early(coding, encode):
    with pytest.raises(BadRequest, match=f"is not {coding}"):
        await decode_body(encode(TEXT)[:-4], coding, 1 << 20)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("body", [TEXT, b"\xff" * 40])
async def test_a_body_that_is_something_else(coding, body):
    with pytest.raises(BadRequest, match=f"is not {coding}"):
        await decode_body(body, coding, 1 << 20)


@pytest.mark.parametrize(("coding", "encode"), [ENCODE[0], ENCODE[3]])
async def test_several_members_are_one_body_and_very_many_are_none(coding, encode):
    assert await decode_body(encode(TEXT) * 3, coding, 1 << 20) == TEXT * 3
    with pytest.raises(BadRequest, match="members"):
        await decode_body(encode(b"") * 10_000, coding, 1 << 20)


async def test_a_window_that_no_http_body_may_have_is_refused():
    parameters = {zstd.CompressionParameter.window_log: 27}
    made = zstd.ZstdCompressor(options=parameters)
    body = made.compress(TEXT) + made.flush()
    with pytest.raises(BadRequest, match="is not zstd"):
        await decode_body(body, "zstd", 1 << 20)


async def test_nothing_is_nothing():
    assert await decode_body(b"", "gzip", 10) == b""


def test_the_names_of_codings():
    assert sorted(CODINGS) == [b"deflate", b"gzip", b"x-gzip", b"zstd"]
