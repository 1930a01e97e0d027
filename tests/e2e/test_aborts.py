"""A client that goes away: vLLM stops working for it, which its own metrics show.

vLLM 0.32 does not count a disconnected client under finished_reason="abort"; what shows is that
nothing runs any more while far fewer tokens were generated than had been asked for.
"""

import asyncio

import httpx
import pytest

from tests.e2e.processes import total
from tests.e2e.watch import Watch, eventually

MODEL = "smollm2-135m"
ASKED = 1900
BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Count."}],
    "max_tokens": ASKED,
    "ignore_eos": True,
}


@pytest.fixture
def watch(backends):
    return Watch(backends[MODEL])


async def test_a_stream_closed_by_the_sdk(client, watch):
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=BODY["messages"],
        max_tokens=ASKED,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    seen = 0
    async for _ in stream:
        seen += 1
        if seen == 3:
            break
    await stream.close()
    await watch.until(lambda: watch.running == 0)
    watch.check_unfinished(ASKED)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_dropped(gateway, watch, stream):
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        asking = asyncio.create_task(
            http.post("/v1/chat/completions", json=BODY | {"stream": stream})
        )
        await watch.until(lambda: watch.generated > 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await watch.until(lambda: watch.running == 0)
    watch.check_unfinished(ASKED)


async def test_the_gateway_counts_it(gateway):
    def disconnects():
        return total(gateway.get("/metrics"), "joulegate_client_disconnects_total")

    before = disconnects()
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=60) as http,
        http.stream("POST", "/v1/chat/completions", json=BODY | {"stream": True}) as answer,
    ):
        async for _ in answer.aiter_bytes():
            break
    await eventually(lambda: disconnects() == before + 1)
