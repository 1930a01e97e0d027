"""A whole answer goes out in one write where nothing stands between, and by ASGI where it does."""

import asyncio
import gc
import weakref

import pytest
from uvicorn.server import ServerState

from gateway.api.protocol import PIECES, GuardedProtocol
from gateway.commands.serving import make_server_config
from gateway.service.client.errors import BadRequest
from gateway.service.client.response import ResponseWriter

POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


class Wire(asyncio.Transport):
    """What has been written, piece by piece."""

    def __init__(self):
        super().__init__()
        self.written = []
        self.closed = False

    def write(self, data):
        self.written.append(bytes(data))

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close

    def pause_reading(self):
        pass

    resume_reading = pause_reading


def answering(headers=(), wrap=lambda send: send, error=None):
    async def app(scope, _, send):
        reply = ResponseWriter(wrap(send), "req_1", pieces=scope["extensions"][PIECES])
        if error is not None:
            await reply.send_error(error)
        else:
            await reply.send_unary(200, b'{"a":1}', headers)
        assert reply.ended
        assert reply.status

    return app


async def serve(app, request=POST, *, full=False):
    config = make_server_config(app)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"today")]
    protocol = GuardedProtocol(config, state, {}, asyncio.get_running_loop())
    wire = Wire()
    protocol.connection_made(wire)
    if full:
        protocol.pause_writing()
    protocol.data_received(request)
    for _ in range(5):
        await asyncio.sleep(0)
    said = tuple(wire.written)
    if full:
        protocol.resume_writing()
        for _ in range(5):
            await asyncio.sleep(0)
    closed = wire.closed
    protocol.connection_lost(None)
    wire.closed = closed  # by then
    return said, wire


HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: today\r\nx-request-id: req_1\r\n"
    b"content-type: application/json\r\ncontent-length: 7\r\nx-more: yes\r\n"
)


async def test_one_write_and_the_connection_stays():
    said, wire = await serve(answering([(b"x-more", b"yes")]))
    assert said == (HEAD + b'\r\n{"a":1}',)
    assert not wire.closed


async def test_a_connection_that_is_to_be_closed_is():
    request = POST.replace(b"host", b"connection: close\r\nhost")
    said, wire = await serve(answering([(b"x-more", b"yes")]), request)
    assert said == (HEAD + b'connection: close\r\n\r\n{"a":1}',)
    assert wire.closed


async def test_an_error_is_one_write_too():
    (said,), _ = await serve(answering(error=BadRequest("no")))
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b'"message":"no"' in said


async def test_two_requests_at_once_are_answered_in_turn():
    said, _ = await serve(answering([(b"x-more", b"yes")]), POST + POST)
    assert said == (HEAD + b'\r\n{"a":1}',) * 2


async def test_what_wraps_an_answer_sees_it():
    seen = []

    def wrap(send):
        async def wrapped(message):
            seen.append(message["type"])
            await send(message)

        return wrapped

    said, _ = await serve(answering(wrap=wrap))
    assert seen == ["http.response.start", "http.response.body"]
    assert b"".join(said).endswith(b'\r\n\r\n{"a":1}')


@pytest.mark.parametrize("protocol", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_head_has_no_body(protocol):
    request = b"HEAD / %b\r\nhost: x\r\n\r\n" % protocol
    said, _ = await serve(answering(), request)
    assert b"content-length: 7" in b"".join(said)
    assert b"{" not in b"".join(said)


async def test_http_1_0_gets_a_length_and_a_close():
    said, wire = await serve(answering(), POST.replace(b"1.1", b"1.0"))
    assert b"".join(said).endswith(b'\r\n\r\n{"a":1}')
    assert b"content-length: 7" in b"".join(said)
    assert wire.closed


async def test_a_line_end_in_a_value_begins_no_header():
    said, wire = await serve(answering([(b"x-more", b"yes\r\nx-evil: 1")]))
    assert said == ()
    assert wire.closed


async def test_it_waits_while_the_client_does_not_read():
    said, wire = await serve(answering(), full=True)
    assert said == ()
    assert b"".join(wire.written).endswith(b'\r\n\r\n{"a":1}')


async def test_a_stream_keeps_no_headers_of_its_request():
    kept = []

    async def app(scope, _, send):
        reply = ResponseWriter(send, "req_1", pieces=scope["extensions"][PIECES])
        asked = list(scope["headers"])
        await reply.start_stream(200, [])
        kept.append((asked, list(scope["headers"])))
        await reply.end_response(b"x")

    said, _ = await serve(app, POST + POST)
    asked = [(b"host", b"x"), (b"content-length", b"2")]
    assert kept == [(asked, []), (asked, [])]
    assert b"".join(said).count(b"HTTP/1.1 200 OK") == 2


async def test_all_who_wait_for_a_client_go_on_when_it_reads():
    written = []

    async def app(_scope, _receive, send):
        async def write(piece):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            written.append(piece)

        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.gather(write(b"1"), write(b"2"))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    said, wire = await serve(app, full=True)
    assert b"".join(said) == b""
    assert sorted(written) == [b"1", b"2"]
    assert b"".join(wire.written).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("request_bytes", [b"", POST, POST + POST, POST[:-1]])
async def test_a_lost_connection_needs_no_collector(request_bytes):
    answer = answering()

    async def app(scope, receive, send):
        await answer(scope, receive, send)
        del scope["extensions"][PIECES]  # as the gateway's own handlers do

    config = make_server_config(app)
    config.load()
    gc.collect()
    gc.disable()
    try:
        protocol = GuardedProtocol(config, ServerState(), {}, asyncio.get_running_loop())
        gone = weakref.ref(protocol)
        protocol.connection_made(Wire())
        if request_bytes:
            protocol.data_received(request_bytes)
        for _ in range(5):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        del protocol
        for _ in range(5):
            await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
