"""HTTP as clients in the field speak it: offers to upgrade, HTTP/1.0, HEAD, halves, compression."""

import asyncio
import gzip
import importlib
import json
import socket
import sys
import zlib

import pytest

from gateway.commands.serve import open_listener
from tests.integration.harness import CHAT, DONE, ENDLESS, STREAM, model, until

zstd = importlib.import_module(
    "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
)
OFFER = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA\r\n"
)
BODY = json.dumps(CHAT).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
INNER = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"


def length(body):
    return b"content-length: %d\r\n\r\n" % len(body)


def chunked(body):
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@pytest.fixture
async def gate(world):
    backend = await world.simulator()
    return await world.gate(model("phi-3-mini", backend))


async def connect(gate):
    host, port = gate.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def exchange(gate, *segments, closes_its_side=False):
    """Send segments one by one, and return everything that comes until the close."""
    reader, writer = await connect(gate)
    for segment in segments:
        writer.write(segment)
        await writer.drain()
        await asyncio.sleep(0.02)
    if closes_its_side:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 15)
    finally:
        writer.close()


def split(raw):
    """An answer's head and body."""
    head, _, body = raw.partition(b"\r\n\r\n")
    return head.lower(), body


CLOSE = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.2"])
@pytest.mark.parametrize(
    "framed", [(length(BODY), BODY), (b"transfer-encoding: chunked\r\n\r\n", chunked(BODY))]
)
@pytest.mark.parametrize("cuts", [0, 1, 2])
async def test_an_offer_to_upgrade_is_ignored_and_the_body_read(gate, protocol, framed, cuts):
    head = HEAD + OFFER.replace(b"h2c", protocol) + framed[0]
    body = framed[1]
    segments = {
        0: [head + body + CLOSE],
        1: [head, body, CLOSE],
        2: [head[:60], head[60:] + body[:9], body[9:20], body[20:] + CLOSE],
    }[cuts]
    raw = await exchange(gate, *segments)
    assert raw.count(b"HTTP/1.1 200 ") == 2
    assert b"chat.completion" in raw
    assert b"101" not in raw.split(b"\r\n")[0]


async def test_a_body_after_an_offer_is_never_taken_for_a_request(gate):
    raw = await exchange(gate, HEAD + OFFER + length(INNER), INNER, CLOSE)
    assert raw.count(b"HTTP/1.1 ") == 2
    assert raw.startswith(b"HTTP/1.1 400")
    assert b"auto:energy" not in raw


async def test_an_offer_with_every_request_of_a_connection(gate):
    request = HEAD + OFFER + length(BODY) + BODY
    raw = await exchange(gate, request, request, request, CLOSE)
    assert raw.count(b"HTTP/1.1 200 ") == 4


async def test_an_offer_without_a_body(gate):
    raw = await exchange(gate, b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + OFFER + b"\r\n", CLOSE)
    assert raw.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("both", [b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"])
async def test_doubtful_framing_is_refused_with_an_offer_too(gate, both):
    raw = await exchange(gate, HEAD + OFFER + both + b"0\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("more", [b"", b"connection: keep-alive\r\n"])
@pytest.mark.parametrize("ask", [CHAT, STREAM])
async def test_http_1_0_is_answered_unchunked_and_closed(gate, ask, more):
    body = json.dumps(ask).encode()
    raw = await exchange(gate, HEAD.replace(b"1.1", b"1.0") + more + length(body) + body)
    head, answer = split(raw)
    assert head.startswith(b"http/1.1 200")
    assert b"transfer-encoding" not in head
    if ask is STREAM:
        assert answer.startswith(b"data: {")
        assert answer.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(answer)["object"] == "chat.completion"


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/v1/models", "/", "/v1/nope"])
async def test_head_is_there_where_get_is(gate, path):
    got = await gate.get(path)
    head = await gate.ask(None, method="HEAD", path=path)
    assert (head.status, head.raw) == (got.status, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


async def test_head_is_not_there_where_only_post_is(gate):
    assert (await gate.ask(None, method="HEAD", path="/v1/chat/completions")).status == 405


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("zstd", zstd.compress),
        ("gzip", gzip.compress),
        ("X-Gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
)
async def test_compressed_bodies_are_decoded(gate, coding, encode):
    got = await gate.ask(encode(BODY), {"content-encoding": coding})
    assert (got.status, got.json["object"]) == (200, "chat.completion")


@pytest.mark.parametrize("coding", ["br", "gzip, zstd", "nonsense"])
async def test_a_coding_that_is_not_understood_is_a_415_that_names_those_that_are(gate, coding):
    got = await gate.ask(BODY, {"content-encoding": coding})
    assert (got.status, got.json["error"]["code"]) == (415, "unsupported_content_encoding")
    assert got.headers["accept-encoding"] == "gzip, deflate, zstd"


async def test_a_bomb_is_a_413_and_nonsense_a_400(gate):
    got = await gate.ask(gzip.compress(b" " * (33 << 20)), {"content-encoding": "gzip"})
    assert (got.status, got.json["error"]["code"]) == (413, "request_too_large")
    got = await gate.ask(BODY, {"content-encoding": "zstd"})
    assert (got.status, got.json["error"]["type"]) == (400, "invalid_request_error")
    assert gate.gateway.dispatcher.bytes_in_flight.held == 0


@pytest.mark.parametrize("ask", [CHAT, STREAM])
async def test_a_client_that_has_closed_its_own_side_gets_its_answer(gate, ask):
    body = json.dumps(ask | {"max_tokens": 30, "ignore_eos": True}).encode()
    raw = await exchange(gate, HEAD + length(body) + body, closes_its_side=True)
    head, answer = split(raw.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert head.startswith(b"http/1.1 200")
    assert (DONE if ask is STREAM else b"chat.completion") in answer
    await until(lambda: gate.idle)


async def test_a_client_that_is_gone_altogether_is_not_waited_for(world):
    backend = await world.simulator(speed=1.0)
    gate = await world.gate(model("phi-3-mini", backend))
    _, writer = await connect(gate)
    body = json.dumps(CHAT | ENDLESS).encode()
    writer.write(HEAD + length(body) + body)
    await until(lambda: backend.engine.running_requests == 1)
    writer.close()
    await until(lambda: gate.idle, seconds=5)
    await until(lambda: world.empty)


def test_every_address_means_both_families():
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with open_listener("::", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=5).close()
    with open_listener("127.0.0.1", 0) as listener:
        assert listener.family == socket.AF_INET
