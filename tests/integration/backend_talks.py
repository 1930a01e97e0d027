"""Servers that talk by a script, a client beside them, and tests under both event loops."""

import asyncio
import contextlib
import functools
import inspect

import pytest
import uvloop

from backends.client import BackendClient
from backends.http.url import parse_request_url
from tests.integration.scripted import Raw, request, response

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def on_both_loops(test):
    """Run a coroutine function as a test under asyncio's loop and under uvloop's."""

    async def bounded(given):
        async with asyncio.timeout(60):
            await test(**given)

    @pytest.mark.parametrize("loop", LOOPS)
    def run(loop, **given):
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(bounded(given))

    # pytest is to see the parameters of the test and `loop` beside them.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ("loop", *inspect.signature(test).parameters)
    wrapped = functools.wraps(test)(run)
    del wrapped.__wrapped__
    wrapped.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    return wrapped


@contextlib.asynccontextmanager
async def talking_to(talk, path="/x", **options):
    """A client, a server that `talk`s, and its address."""
    options = {"connect_seconds": 5.0} | options
    async with Raw(talk) as server, BackendClient(**options) as client:
        yield client, server, parse_request_url(server.url + path)


def answering(*answers, closes=False):
    """A talk that gives one raw answer after another to whatever is asked."""

    async def talk(reader, writer):
        for answer in answers:
            await request(reader)
            writer.write(answer)
            await writer.drain()
        if not closes:
            await reader.read()

    return talk


async def ask(client, url, body=b"{}", limit=1 << 30):
    answer = await client.post(url, body, {})
    try:
        return answer.status, await answer.read_body(limit)
    finally:
        answer.close()


def echoing(name):
    """A talk that answers everything with its own name."""

    async def talk(reader, writer):
        while True:
            await request(reader)
            writer.write(response(name))

    return talk
