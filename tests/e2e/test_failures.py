"""A backend killed in the middle of its work, in two ways. Last of all: it takes a server down."""

import asyncio
import contextlib
import time

import httpx
import openai
import pytest_asyncio

from tests.e2e.fleet import FLEET
from tests.e2e.processes import total
from tests.e2e.watch import eventually

HELLO = [{"role": "user", "content": "Hello"}]
VICTIM = "mistral-7b"
LONG = {"model": VICTIM, "messages": HELLO, "max_tokens": 30000, "ignore_eos": True, "stream": True}
# Long enough to be under way at the kill; of the others only phi-3-mini's context holds it.
UNARY = {"model": "auto", "messages": HELLO, "max_tokens": 3000, "ignore_eos": True}
ACCURATE = {"x-joulegate-weight-accuracy": "1"}


async def through_the_sdk(gateway, begun):
    """Stream until it breaks; return what the SDK raised."""
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="unused") as client:
        stream = await client.chat.completions.create(
            model=VICTIM,
            messages=HELLO,
            max_tokens=LONG["max_tokens"],
            stream=True,
            extra_body={"ignore_eos": True},
        )
        try:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    begun.set()
        except openai.APIError as error:
            return error
    return None


async def on_the_wire(gateway, begun):
    """Stream until it breaks; return every byte that came."""
    seen = b""
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=60) as http,
        http.stream("POST", "/v1/chat/completions", json=LONG) as answer,
    ):
        # The connection is closed without the end of the chunked body: cut, for all to see.
        with contextlib.suppress(httpx.RemoteProtocolError):
            async for part in answer.aiter_bytes():
                seen += part
                if seen.count(b"data:") > 3:
                    begun.set()
    return seen


async def unary(gateway):
    async with httpx.AsyncClient(base_url=gateway.url, timeout=120) as http:
        return await http.post("/v1/chat/completions", json=UNARY, headers=ACCURATE)


def in_flight(gateway):
    return total(gateway.get("/metrics"), "joulegate_backend_inflight", model=VICTIM)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["server", "engine"])
async def killed(request, gateway, backends):
    """Kill the backend under two streams and a unary request; return what became of them."""
    server = backends[VICTIM]
    assert in_flight(gateway) == 0
    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        streams = [(ask, asyncio.Event()) for ask in (through_the_sdk, on_the_wire)]
        asks = [group.create_task(ask(gateway, begun)) for ask, begun in streams]
        await asyncio.gather(*(begun.wait() for _, begun in streams))
        asks.append(group.create_task(unary(gateway)))

        async def three_are_there():
            # Answered before the kill, by whomever, it is asked again.
            if asks[2].done():
                asks[2] = group.create_task(unary(gateway))
            # The gateway's own gauge: vLLM's metrics are seconds late while it is this busy.
            return await asyncio.to_thread(in_flight, gateway) == len(asks)

        await eventually(three_are_there)
        if request.param == "server":
            await asyncio.to_thread(server.kill)
        else:
            # vLLM itself then ends its streams with an error frame, [DONE] and a clean close.
            server.kill_member("EngineCore")
    return [ask.result() for ask in asks]


async def test_the_sdk_raises(killed):
    error, _, _ = killed
    assert isinstance(error, openai.APIError)
    assert isinstance(error.code, str)
    assert error.message


async def test_one_error_frame_and_no_done(killed):
    _, seen, _ = killed
    frames = [frame for frame in seen.decode().split("\n\n") if frame]
    assert '"error"' in frames[-1]
    assert sum('"error"' in frame for frame in frames) == 1
    assert "[DONE]" not in seen.decode()


async def test_what_had_no_byte_yet_is_answered_by_another(killed):
    _, _, answer = killed
    assert answer.status_code == 200
    assert answer.json()["model"] == answer.headers["x-joulegate-model"] == "phi-3-mini"
    assert answer.headers["x-joulegate-attempts"] == "2"
    assert answer.json()["usage"]["completion_tokens"] == UNARY["max_tokens"]


async def test_auto_goes_on(client, killed):
    del killed
    for model in ("auto", "auto:accuracy") * 5:
        raw = await client.chat.completions.with_raw_response.create(
            model=model, messages=HELLO, max_tokens=4
        )
        assert raw.parse().model in FLEET.keys() - {VICTIM}


async def test_its_own_name_is_refused_at_once(gateway, killed):
    del killed
    body = {"model": VICTIM, "messages": HELLO, "max_tokens": 4}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
        for _ in range(10):  # more than it takes to eject
            answer = await http.post("/v1/chat/completions", json=body)
            assert answer.status_code in {502, 503}
            assert answer.headers["x-should-retry"] == "false"
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        seconds = []
        for _ in range(5):  # the best of them: this machine is shared
            started = time.monotonic()
            answer = await http.post("/v1/chat/completions", json=body)
            seconds.append(time.monotonic() - started)
            assert answer.status_code == 503
        assert min(seconds) < 0.1


async def test_the_decision_says_that_it_is_down(gateway, killed):
    del killed
    async with httpx.AsyncClient(base_url=gateway.url) as http:

        async def excluded():
            body = {"model": "auto", "messages": HELLO}
            decision = (await http.post("/v1/route", json=body)).json()
            return [out["reason"] for out in decision["excluded"] if out["model"] == VICTIM]

        await eventually(excluded)
        (reason,) = await excluded()
    assert "down" in reason


async def test_it_comes_back(client, backends, killed):
    del killed
    server = backends[VICTIM]
    server.close()
    server.start()
    await asyncio.to_thread(server.wait_until_up)

    async def answers():
        try:
            answer = await client.chat.completions.create(
                model="auto:accuracy", messages=HELLO, max_tokens=4
            )
        except openai.APIStatusError:
            return False
        return answer.model == VICTIM

    await eventually(answers, 90)  # a server just started is slow at first
