"""`joulegate serve` from its start to its end, as a process of its own."""

import asyncio
import json
import signal

import aiohttp
import pytest

from tests.integration.harness import CHAT, DONE, ENDLESS, STREAM, Got, until
from tests.integration.process import joulegate, serve

# uvicorn ends gracefully and then raises the signal that it caught once more.
ENDED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


async def read(http, url, body, started):
    """Read a stream to its end, however that comes; `started` is told of its first byte."""
    got = Got(0, {}, b"")
    try:
        async with http.post(f"{url}/v1/chat/completions", json=body) as response:
            got.status = response.status
            async for piece in response.content.iter_any():
                got.raw += piece
                started.set()
    except aiohttp.ClientPayloadError as error:
        got.error = error
    return got


async def begin(http, url, *bodies):
    """Start streams and wait until each has begun."""
    events = [asyncio.Event() for _ in bodies]
    tasks = [
        asyncio.create_task(read(http, url, body, event))
        for body, event in zip(bodies, events, strict=True)
    ]
    await asyncio.gather(*(event.wait() for event in events))
    return tasks


async def turned_away(served):
    """Whether a new client is told not to come."""
    try:
        status, body = await served.get("/ready")
    except OSError:
        return True
    return status == 503 and json.loads(body)["status"] == "draining"


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_running_streams_finish(world, http, tmp_path, number):
    simulator = await world.simulator(speed=1.0)
    async with serve(tmp_path, {"phi-3-mini": simulator.url}) as served:
        # Each goes on for two seconds and more.
        tasks = await begin(http, served.url, STREAM, STREAM, STREAM | {"max_tokens": 40})
        unary = asyncio.create_task(
            http.post(f"{served.url}/v1/chat/completions", json=CHAT | {"max_tokens": 40})
        )
        await until(lambda: simulator.engine.running_requests == 4)
        served.process.send(number)
        await until(lambda: turned_away(served), "new clients to be turned away")
        assert simulator.engine.running_requests
        for got in await asyncio.gather(*tasks):
            assert (got.status, got.error, got.events[-1]) == (200, None, DONE)
        async with await unary as response:
            assert (response.status, (await response.json())["model"]) == (200, "phi-3-mini")
        code = await served.process.ended()
    assert code in {*ENDED, -signal.SIGINT, 128 + signal.SIGINT}
    assert not served.process.said("Traceback|Exception")
    await until(lambda: world.empty)


async def test_past_the_drain_deadline_streams_end_in_an_error_frame(world, http, tmp_path):
    simulator = await world.simulator(speed=1.0)
    timeouts = {"drain_seconds": 1.0}
    async with serve(tmp_path, {"phi-3-mini": simulator.url}, timeouts=timeouts) as served:
        tasks = await begin(http, served.url, STREAM | ENDLESS, STREAM | ENDLESS)
        unary = asyncio.create_task(
            http.post(f"{served.url}/v1/chat/completions", json=CHAT | ENDLESS)
        )
        await until(lambda: simulator.engine.running_requests == 3)
        served.process.send(signal.SIGTERM)
        for got in await asyncio.gather(*tasks):
            assert got.error is not None
            assert DONE not in got.events
            assert got.chunks[-1]["error"]["code"] == "draining"
            assert sum("error" in chunk for chunk in got.chunks) == 1
            assert got.text
        async with await unary as response:
            assert response.status == 503
            assert (await response.json())["error"]["code"] == "draining"
            # Another replica may answer: an SDK is free to try again.
            assert "x-should-retry" not in response.headers
        assert await served.process.ended() in ENDED
    assert not served.process.said("Traceback|Exception")
    await until(lambda: world.empty, "the backend to be let go")


async def test_idle_it_ends_at_once_with_kept_alive_clients(world, http, tmp_path):
    simulator = await world.simulator()
    async with serve(tmp_path, {"phi-3-mini": simulator.url}) as served:
        async with http.post(f"{served.url}/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
            await response.read()
        served.process.send(signal.SIGTERM)
        assert await served.process.ended() in ENDED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("models: [", "not YAML"),
        ("models: []", "models"),
        ("model: []", "did you mean 'models'?"),
        (
            "models: [{name: phi-3-mini, context: 4096, backend: []}]",
            "models[0]: unknown key 'backend'; did you mean 'backends'?",
        ),
        ("models: [{name: a, context: 9, backends: [{url: 'ftp://x'}]}]", "http://host:port"),
        ("models: [{name: a, context: 9, backends: [{url: 'http://x'}]}]", "no model 'a'"),
        (
            "models: [{name: a, context: 9, backends: [{url: 'http://x', api_key: '${NOT_SET}'}]}]",
            "NOT_SET is not set",
        ),
        (
            "{models: [{name: phi-3-mini, context: 9, backends: [{url: 'http://x'}]}], profile: p}",
            "p: No such file",
        ),
    ],
)
async def test_a_bad_config_is_exit_code_2_and_one_clear_line(tmp_path, text, words):
    path = tmp_path / "gateway.yaml"
    if text is not None:
        path.write_text(text)
    async with joulegate("serve", "--config", path, "--port", 0) as process:
        code = await process.ended()
    said = " ".join(process.lines)
    assert code == 2, said
    assert words in said
    assert "Traceback" not in said
    assert said.startswith("joulegate: ")


async def test_a_port_that_is_taken_is_said_so(world, tmp_path):
    simulator = await world.simulator()
    path = tmp_path / "gateway.yaml"
    path.write_text(
        f"models: [{{name: phi-3-mini, context: 4096, backends: [{{url: '{simulator.url}'}}]}}]"
    )
    for more in ((), ("--workers", "2")):
        async with joulegate("serve", "--config", path, "--port", simulator.port, *more) as process:
            code = await process.ended()
        said = " ".join(process.lines)
        assert code != 0
        assert "already in use" in said
        assert "Traceback" not in said
