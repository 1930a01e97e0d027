"""An event loop that is held up blames no backend for it: time limits count the time it ran."""

import asyncio
import time

import pytest

from backends.http.loop_patience import limit_loop_seconds
from backends.http.pool import ConnectionPool
from tests.integration.backend_talks import answering, ask, on_both_loops, talking_to
from tests.integration.scripted import response


def hold_up(seconds, times=1):
    """Keep the loop from running, from its next turn on; so often, with a turn between."""
    loop = asyncio.get_running_loop()

    def hold(left):
        time.sleep(seconds)
        if left > 1:
            loop.call_soon(hold, left - 1)

    loop.call_soon(hold, times)


@pytest.mark.parametrize("times", [1, 3])
@on_both_loops
async def test_a_connection_made_meanwhile_is_used(times, monkeypatch):
    connect = ConnectionPool._connect_to

    async def connect_then_hold(pool, endpoint):
        connection = await connect(pool, endpoint)
        # It is there; who waits for it is to learn of it in turns of the loop that come late.
        hold_up(0.3, times)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return connection

    monkeypatch.setattr(ConnectionPool, "_connect_to", connect_then_hold)
    async with talking_to(answering(response(b"hello")), connect_seconds=0.1) as (client, _, url):
        assert await ask(client, url) == (200, b"hello")


@pytest.mark.parametrize("times", [1, 3])
@on_both_loops
async def test_a_probe_that_was_answered_meanwhile_is_well(times):
    async with talking_to(answering(response(b"hello"))) as (client, _, url):
        probing = asyncio.create_task(client.get(url, {}, seconds=0.1))
        hold_up(0.3, times)
        assert await probing == (200, b"hello")


@on_both_loops
async def test_silence_has_an_end():
    with pytest.raises(TimeoutError):
        async with limit_loop_seconds(0.05):
            await asyncio.Event().wait()


@on_both_loops
async def test_silence_has_an_end_in_a_loop_that_is_always_late():
    hold_up(0.01, times=1_000)
    with pytest.raises(TimeoutError):
        async with limit_loop_seconds(0.02):
            await asyncio.Event().wait()


@on_both_loops
async def test_what_is_done_in_time_is_not_disturbed():
    async with limit_loop_seconds(0.02):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
