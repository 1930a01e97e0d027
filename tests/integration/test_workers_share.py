"""Several workers are one gateway: loads, ejections and what was learnt are shared by all."""

import contextlib
import json
import os
import signal

import aiohttp

from tests.integration.harness import CHAT, ENDLESS, STREAM, until
from tests.integration.process import serve
from tests.integration.test_workers import started

WORKERS = 3


@contextlib.asynccontextmanager
async def served_by_workers(tmp_path, urls, **config):
    async with serve(tmp_path, urls, "--workers", WORKERS, **config) as served:
        await until(
            lambda: (
                sum("Application startup complete" in line for line in served.process.lines)
                == WORKERS
            ),
            "all workers",
            seconds=60,
        )
        yield served


async def ask_once(served, path, body):
    # A connection each, so that every worker gets some.
    async with (
        aiohttp.ClientSession(headers={"connection": "close"}) as http,
        http.post(served.url + path, json=body) as response,
    ):
        return response.status, await response.read()


async def loads_seen(served, count=24):
    """What whichever workers answer see running on the only backend."""
    seen = []
    for _ in range(count):
        _, body = await ask_once(served, "/v1/route", CHAT)
        seen.append(json.loads(body)["candidates"][0]["running"])
    return seen


async def hold_stream(served, http):
    response = await http.post(f"{served.url}/v1/chat/completions", json=STREAM | ENDLESS)
    assert response.status == 200
    return response


async def test_all_see_what_all_have_in_flight_and_the_dead_leave_nothing(world, tmp_path):
    simulator = await world.simulator(speed=1.0)
    config = {"health": {"load_seconds": 3600}}  # no gauges: only what the workers tell each other
    async with (
        served_by_workers(tmp_path, {"phi-3-mini": simulator.url}, **config) as served,
        aiohttp.ClientSession(headers={"connection": "close"}) as http,
    ):
        streams = [await hold_stream(served, http) for _ in range(12)]
        assert set(await loads_seen(served)) == {12}
        pids = {pid for line in served.process.lines if (pid := started(line))}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

        async def nothing_left():
            with contextlib.suppress(aiohttp.ClientError):
                return set(await loads_seen(served, 6)) == {0}

        await until(nothing_left, "the dead workers' streams are counted out", seconds=60)
        for stream in streams:
            stream.close()


async def test_an_ejection_that_one_worker_finds_counts_for_all(world, tmp_path):
    asked = 0

    async def talk(reader, writer):
        nonlocal asked
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        else:
            asked += 1

    backend = await world.raw(talk)
    config = {
        "health": {"idle_probe_seconds": 3600, "probe_seconds": 3600, "eject_after_failures": 3},
        "retry": {"max_attempts": 1},
    }
    async with (
        served_by_workers(tmp_path, {"phi-3-mini": backend.url}, **config) as served,
        aiohttp.ClientSession() as one_worker,
    ):
        # One connection, so one worker; an answer that is not read to its end closes it.
        for _ in range(3):
            async with one_worker.post(f"{served.url}/v1/chat/completions", json=CHAT) as answer:
                said = await answer.text()
                assert answer.status in (502, 503), said
        assert asked == 3

        async def all_know():
            said = [json.loads((await ask_once(served, "/v1/route", CHAT))[1]) for _ in range(12)]
            return all(len(answer["excluded"]) == 1 for answer in said)

        await until(all_know, "every worker has it ejected", seconds=60)
        for _ in range(12):
            assert (await ask_once(served, "/v1/chat/completions", CHAT))[0] == 503
        assert asked == 3

        async def counted():
            return await served.metric("joulegate_backend_ejections_total") == 1

        await until(counted, "one ejection")


async def test_what_one_worker_learnt_all_know_and_a_new_one_finds(world, tmp_path):
    simulator = await world.simulator()
    state = tmp_path / "learnt" / "state.json"
    state.parent.mkdir()
    config = {"learning": {"state": str(state)}}
    async with (
        served_by_workers(tmp_path, {"phi-3-mini": simulator.url}, **config) as served,
        aiohttp.ClientSession() as one_worker,
    ):
        for _ in range(20):
            async with one_worker.post(f"{served.url}/v1/chat/completions", json=CHAT) as answer:
                await answer.read()
                assert answer.status == 200

        async def expect():
            """What whichever workers answer expect, and where they have it from."""
            said = set()
            for _ in range(12):
                tokens = json.loads((await ask_once(served, "/v1/route", CHAT))[1])["tokens"]
                said.add((tokens["source"], tokens["output"]))
            return said

        async def agreed():
            said = await expect()
            return len(said) == 1 and said.pop()[0] == "application"

        await until(agreed, "all workers expect the same", seconds=60)
        await until(lambda: state.exists() and b"applications" in state.read_bytes(), "the file")
        assert [path.name for path in state.parent.glob("state.json*")] == [state.name]
        pids = {pid for line in served.process.lines if (pid := started(line))}
        os.kill(min(pids), signal.SIGKILL)

        def replaced():
            now = {pid for line in served.process.lines if (pid := started(line))}
            return len(now) == WORKERS + 1

        await until(replaced, "a new worker", seconds=60)
        await until(agreed, "the new worker expects the same", seconds=60)
