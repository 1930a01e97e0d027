"""Files that hang or have no end: neither serving nor SIGTERM waits for them."""

import asyncio
import os
import signal

import aiohttp
import pytest

from gateway import profile as profiles
from tests.integration.harness import CHAT, until
from tests.integration.process import joulegate, serve

ENDED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


async def ask(served):
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
        http.post(f"{served.url}/v1/chat/completions", json=CHAT) as response,
    ):
        await response.read()
        return response.status


async def end(served):
    served.process.send(signal.SIGTERM)
    assert await asyncio.wait_for(served.process.ended(), 60) in ENDED


@pytest.mark.parametrize("file", ["pipe", "/dev/full", "folder"])
async def test_a_decision_log_that_takes_nothing(world, tmp_path, file):
    simulator = await world.simulator()
    path = tmp_path / file
    if file == "pipe":
        os.mkfifo(path)
    elif file == "folder":
        path.mkdir()
    async with serve(
        tmp_path, {"phi-3-mini": simulator.url}, log={"decisions": str(path)}
    ) as served:
        assert [await ask(served) for _ in range(3)] == [200] * 3
        await served.process.says("lines are being lost")

        async def counted():
            return await served.metric("joulegate_decision_log_dropped_total") == 3

        await until(counted, "the lost lines")
        await end(served)


async def test_a_decision_log_on_the_process_own_output(world, tmp_path):
    simulator = await world.simulator()
    async with serve(
        tmp_path, {"phi-3-mini": simulator.url}, log={"decisions": "/dev/stderr"}
    ) as served:
        assert await ask(served) == 200
        await served.process.says('"requested":"auto"')
        await end(served)


@pytest.mark.parametrize("kind", ["pipe", "endless"])
async def test_a_profile_that_becomes_one(world, tmp_path, kind):
    simulator = await world.simulator()
    path = tmp_path / "profile.json"
    profiles.save_profile(profiles.load_profile(None).models, path)
    shipped = path.read_bytes()
    async with serve(tmp_path, {"phi-3-mini": simulator.url}, profile=str(path)) as served:
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        await served.process.says("profile refused.*not a regular file")
        assert [await ask(served) for _ in range(3)] == [200] * 3
        path.unlink()
        path.write_bytes(shipped)
        await served.process.says("profile [0-9a-f]{12} is in force")
        await end(served)


@pytest.mark.parametrize("key", ["profile", "config"])
async def test_a_pipe_to_begin_with_is_refused(tmp_path, key):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "models: [{name: phi-3-mini, context: 10, backends: [{url: 'http://127.0.0.1:1'}]}]\n"
        f"profile: {pipe}\n"
    )
    given = pipe if key == "config" else config
    for command in (("check",), ("serve", "--port", 0)):
        async with joulegate(*command, "--config", given) as process:
            assert await process.ended() == 2
        assert process.said("is a pipe, not a regular file"), process.lines
