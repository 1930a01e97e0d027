"""The client to backends that are not there, break off or say too much, under both event loops."""

import asyncio
import socket

import pytest

from backends.client import BackendClient
from backends.errors import BackendUnreachable, ConnectionLost, InvalidResponse, ResponseTooLarge
from backends.http.url import parse_request_url
from tests.integration.backend_talks import CHUNKED, answering, ask, on_both_loops, talking_to
from tests.integration.harness import until
from tests.integration.scripted import request, response


@on_both_loops
async def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = parse_request_url(f"http://127.0.0.1:{taken.getsockname()[1]}/")
        async with BackendClient(connect_seconds=5.0) as client:
            with pytest.raises(BackendUnreachable, match="no connection to 127"):
                await client.post(url, b"", {})
            assert client.busy == 0


@on_both_loops
async def test_no_such_name():
    async with BackendClient(connect_seconds=20.0) as client:
        with pytest.raises(BackendUnreachable, match=r"nobody\.invalid"):
            await client.post(parse_request_url("http://nobody.invalid/"), b"", {})


@on_both_loops
async def test_a_handshake_that_stalls_is_no_connection():
    async def talk(reader, _):
        await reader.read()

    async with talking_to(talk, connect_seconds=0.2) as (client, server, _):
        url = parse_request_url(server.url.replace("http:", "https:"))
        with pytest.raises(BackendUnreachable, match=r"within 0\.2 s"):
            await client.post(url, b"", {})
        await until(lambda: not server.writers, "the server to see the close")


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", ConnectionLost),
        (b"HTTP/1.1 200 OK\r\ncontent-le", ConnectionLost),
        (b"<html>no</html>", InvalidResponse),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", InvalidResponse),
        (response(b"hello")[:-1], ConnectionLost),
        (CHUNKED + b"5\r\nhel", ConnectionLost),
        (CHUNKED + b"5\r\nhello\r\n", ConnectionLost),
        (CHUNKED + b"5\r\nhello\r\nzz\r\n", InvalidResponse),
    ],
)
@on_both_loops
async def test_an_answer_that_breaks(raw, error):
    async with talking_to(answering(raw, closes=True)) as (client, server, url):
        with pytest.raises(error):
            await ask(client, url)
        assert client.busy == 0
        assert server.connections == 1


@on_both_loops
async def test_what_came_before_a_break_is_read_first():
    go = asyncio.Event()

    async def talk(reader, writer):
        await request(reader)
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await go.wait()

    async with talking_to(talk) as (client, _, url):
        answer = await client.post(url, b"{}", {})
        go.set()
        await until(lambda: answer._exchange.error is not None)
        assert await answer.read_chunk() == b"hello"
        with pytest.raises(ConnectionLost, match="within the answer"):
            await answer.read_chunk()
        answer.close()


@pytest.mark.parametrize("declared", [True, False])
@on_both_loops
async def test_an_answer_over_the_limit(declared):
    raw = response(b"x" * 100) if declared else CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n"
    async with talking_to(answering(raw, raw)) as (client, _, url):
        with pytest.raises(ResponseTooLarge, match="over 99 bytes"):
            await ask(client, url, limit=99)
    async with talking_to(answering(raw)) as (client, _, url):
        assert await ask(client, url, limit=100) == (200, b"x" * 100)
