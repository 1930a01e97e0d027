"""A client that leaves the simulated vLLM, and a server that leaves its clients."""

import asyncio

import aiohttp
import pytest

from backends.simulator.server import start_simulator
from tests.integration.simulated import CHAT, metric, spec
from tests.waiting import until


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_aborts_its_request(stream):
    slow = spec(speed=1.0)
    async with (
        await start_simulator(slow) as server,
        aiohttp.ClientSession(server.url) as session,
    ):
        body = CHAT | {"stream": stream, "max_tokens": 400, "ignore_eos": True}
        task = asyncio.ensure_future(session.post("/v1/chat/completions", json=body))
        await until(lambda: server.engine.running_requests == 1)
        if stream:
            (await task).close()
        else:
            task.cancel()
        await until(lambda: server.engine.running_requests == 0)
        got = await metric(session, "vllm:request_success_total", finished_reason="abort")
        assert got == 1
        await asyncio.gather(task, return_exceptions=True)


async def test_close_cuts_what_is_in_flight():
    server = await start_simulator(spec(speed=1.0))
    async with aiohttp.ClientSession(server.url) as session:
        body = CHAT | {"max_tokens": 400, "ignore_eos": True}
        task = asyncio.ensure_future(session.post("/v1/chat/completions", json=body))
        await until(lambda: server.engine.running_requests == 1)
        await server.close()
        await server.close()
        with pytest.raises(aiohttp.ClientError):
            await task
