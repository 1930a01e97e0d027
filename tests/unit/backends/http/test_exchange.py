"""One HTTP/1.1 exchange, byte by byte, without a socket."""

import gzip
import itertools
import weakref
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import ConnectionLost, InvalidResponse
from backends.http.exchange import (
    AWAITING_HEAD,
    COMPLETE,
    FAILED,
    IN_BODY,
    MOST_HEAD_BYTES,
    HttpExchange,
    encode_request_head,
)
from backends.http.url import parse_request_url

CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
BODY = b"hello, world"


def measured(body=BODY, more=b"", status=b"200 OK"):
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n%s\r\n%s" % (status, len(body), more, body)


def chunks(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def read(*pieces, end=False):
    """Feed pieces to an exchange; return it and the body it gave."""
    exchange = HttpExchange()
    body = b""
    for piece in pieces:
        exchange.feed(piece)
        body += exchange.take()
    if end:
        exchange.end_input()
    return exchange, body


# Each whole answer, its body, whether the connection's end ends it, whether it may be used again.
WHOLE = {
    "measured": (measured(), BODY, False, True),
    "measured and empty": (measured(b""), b"", False, True),
    "chunked": (CHUNKED + chunks(b"hello", b", ", b"world"), BODY, False, True),
    "chunked and empty": (CHUNKED + chunks(), b"", False, True),
    "chunk extension": (CHUNKED + b"c;name=value\r\nhello, world\r\n0\r\n\r\n", BODY, False, True),
    "trailer": (CHUNKED + b"c\r\nhello, world\r\n0\r\nx-t: 1\r\n\r\n", BODY, False, True),
    "to the end": (b"HTTP/1.1 200 OK\r\n\r\nhello, world", BODY, True, False),
    "to the end, old": (b"HTTP/1.0 200 OK\r\n\r\nhello, world", BODY, True, False),
    "old": (measured().replace(b"1.1", b"1.0", 1), BODY, False, False),
    "old, kept": (
        measured(more=b"connection: keep-alive\r\n").replace(b"1.1", b"1.0", 1),
        BODY,
        False,
        True,
    ),
    "closing": (measured(more=b"connection: close\r\n"), BODY, False, False),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", False, True),
    "after 100": (b"HTTP/1.1 100 Continue\r\n\r\n" + measured(), BODY, False, True),
    "after 103s": (b"HTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n" * 3 + measured(), BODY, False, True),
    "no reason": (measured(status=b"200 "), BODY, False, True),
    "gzip": (
        measured(gzip.compress(BODY, mtime=0), b"content-encoding: gzip\r\n"),
        BODY,
        False,
        True,
    ),
    "deflate": (measured(zlib.compress(BODY), b"Content-Encoding: DEFLATE\r\n"), BODY, False, True),
    "gzip, chunked": (
        CHUNKED.replace(b"\r\n\r\n", b"\r\ncontent-encoding: x-gzip\r\n\r\n")
        + chunks(gzip.compress(BODY, mtime=0)),
        BODY,
        False,
        True,
    ),
    "gzip of nothing": (measured(b"", b"content-encoding: gzip\r\n"), b"", False, True),
    "identity": (measured(more=b"content-encoding: identity\r\n"), BODY, False, True),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_split_at_every_byte(name):
    raw, body, to_the_end, reusable = WHOLE[name]
    for cut in range(len(raw) + 1):
        exchange, got = read(*filter(None, (raw[:cut], raw[cut:])), end=to_the_end)
        assert (exchange.state, got) == (COMPLETE, body), cut
        assert exchange.reusable is reusable
        assert exchange.status in (200, 204)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_byte_by_byte(name):
    raw, body, to_the_end, reusable = WHOLE[name]
    exchange, got = read(*(bytes([byte]) for byte in raw), end=to_the_end)
    assert (exchange.state, got, exchange.reusable) == (COMPLETE, body, reusable)


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_that_stops_anywhere_is_lost(name):
    raw, body, to_the_end, _ = WHOLE[name]
    until_head = raw.rfind(b"\r\n\r\n") + 4 if to_the_end else len(raw)
    for cut in range(until_head):
        exchange, got = read(*filter(None, [raw[:cut]]), end=True)
        assert exchange.state is FAILED, cut
        assert body.startswith(got)
        with pytest.raises(ConnectionLost):
            exchange.raise_error()
        assert not exchange.reusable
        assert exchange.received is (cut > 0)


def test_a_body_without_a_length_that_breaks_is_not_whole():
    exchange, got = read(b"HTTP/1.1 200 OK\r\n\r\nhalf")
    exchange.lose("reset")
    assert (exchange.state, got) == (FAILED, b"half")
    with pytest.raises(ConnectionLost, match="reset"):
        exchange.raise_error()


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\ncontent-length: 0\r\n\r\n",
        measured(more=b"content-length: 3\r\n"),
        measured(more=b"transfer-encoding: chunked\r\n"),
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\nh\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nh",
        CHUNKED + b"xyz\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"5\r\nhelloBAD",
        CHUNKED + b"ffffffffffffffffff\r\n",
        measured(more=b"content-encoding: br\r\n"),
        measured(b"not gzip at all", b"content-encoding: gzip\r\n"),
        measured(gzip.compress(BODY, mtime=0)[:-5], b"content-encoding: gzip\r\n"),
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ],
)
def test_what_is_no_answer_fails_however_it_is_cut(raw):
    for cut in range(1, len(raw) + 1):
        exchange, _ = read(*filter(None, (raw[:cut], raw[cut:])))
        assert exchange.state is FAILED, cut
        with pytest.raises(InvalidResponse):
            exchange.raise_error()
        assert not exchange.reusable


@pytest.mark.parametrize("raw", [measured(), CHUNKED + chunks(BODY)])
@pytest.mark.parametrize(
    "more", [measured(b"another's"), b"\x00", b"garbage", b"HTTP/1.1 500 X\r\n"]
)
@pytest.mark.parametrize("together", [True, False])
def test_a_second_answer_is_no_part_of_the_first(raw, more, together):
    exchange, got = read(raw + more) if together else read(raw, more)
    assert (exchange.state, got, exchange.status) == (COMPLETE, BODY, 200)
    assert exchange.surplus
    assert not exchange.reusable


def test_a_head_has_a_bound_and_so_have_all_the_interim_ones():
    for endless in (b"x-a: " + b"b" * 1000 + b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"):
        exchange = HttpExchange()
        if endless.startswith(b"x"):
            exchange.feed(b"HTTP/1.1 200 OK\r\n")
        fed = 0
        while exchange.state is AWAITING_HEAD:
            exchange.feed(endless)
            fed += len(endless)
            assert fed <= MOST_HEAD_BYTES + 2 * len(endless)
        with pytest.raises(InvalidResponse, match="head of over"):
            exchange.raise_error()


def test_a_bomb_is_refused():
    bomb = gzip.compress(b"\0" * (64 << 20))
    exchange, got = read(measured(bomb, b"content-encoding: gzip\r\n"))
    assert exchange.state is FAILED
    assert not got
    with pytest.raises(InvalidResponse, match="beyond all measure"):
        exchange.raise_error()


def test_headers_of_the_final_answer_alone():
    interim = b"HTTP/1.1 103 Early\r\nretry-after: 9\r\n\r\n"
    exchange, _ = read(interim + measured(more=b"X-One: 1\r\nx-one: 2\r\n"))
    assert exchange.header(b"x-one") == b"1"
    assert exchange.header(b"retry-after") is None
    assert exchange.content_length == len(BODY)


def test_a_trailer_is_no_header():
    exchange, _ = read(CHUNKED + b"1\r\nh\r\n0\r\nretry-after: 9\r\n\r\n")
    assert exchange.header(b"retry-after") is None


def test_what_is_held_is_counted_until_taken():
    exchange = HttpExchange()
    exchange.feed(CHUNKED + b"5\r\nhello\r\n")
    exchange.feed(b"2\r\n, \r\n")
    assert (exchange.state, exchange.held) == (IN_BODY, 7)
    assert exchange.take() == b"hello, "
    assert (exchange.held, exchange.take()) == (0, b"")


@pytest.mark.parametrize("raw", [measured(), b"garbage", b"HTTP/1.1 200 OK\r\n\r\nhalf"])
def test_an_exchange_that_is_over_needs_no_collector(raw):
    class Watched(HttpExchange):
        __slots__ = ("__weakref__",)

    exchange = Watched()
    exchange.feed(raw)
    exchange.end_input()
    seen = weakref.ref(exchange)
    del exchange
    assert seen() is None


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5), st.booleans())
def test_noise_never_raises_and_always_ends(noise, cuts, head):
    raw = CHUNKED + noise if head else noise
    marks = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    exchange, _ = read(*(raw[a:b] for a, b in itertools.pairwise(marks)), end=True)
    assert exchange.state in (COMPLETE, FAILED)
    whole, _ = read(*([raw] if raw else []), end=True)
    assert (whole.state, whole.status) == (exchange.state, exchange.status)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.randoms(use_true_random=False))
def test_any_chunks_cut_anyhow_give_the_body(pieces, rng):
    raw = CHUNKED + chunks(*pieces)
    fed = []
    while raw:
        cut = rng.randint(1, len(raw))
        fed.append(raw[:cut])
        raw = raw[cut:]
    exchange, got = read(*fed)
    assert (exchange.state, got, exchange.reusable) == (COMPLETE, b"".join(pieces), True)


@given(st.data())
def test_a_flipped_bit_never_raises(data):
    raw = bytearray(data.draw(st.sampled_from([value[0] for value in WHOLE.values()])))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    exchange, _ = read(bytes(raw), end=True)
    assert exchange.state in (COMPLETE, FAILED)


# --- what is sent -----------------------------------------------------------------------------


def test_a_request_head():
    url = parse_request_url("http://a:8000/v1/chat/completions")
    head = encode_request_head("POST", url, {"Content-Type": "application/json"}, 12)
    assert head == (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a:8000\r\nAccept-Encoding: identity\r\n"
        b"Content-Type: application/json\r\nContent-Length: 12\r\n\r\n"
    )
    assert b"Content-Length" not in encode_request_head("GET", url, {}, None)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\n", "\r", "a\r\n\r\nPOST / HTTP/1.1"])
def test_a_header_cannot_begin_another(value):
    url = parse_request_url("http://a")
    with pytest.raises(ValueError, match="line end"):
        encode_request_head("GET", url, {"X-A": value}, None)
