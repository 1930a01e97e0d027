"""Several workers: one port, one set of metrics."""

import asyncio
import os
import re
import signal

import aiohttp

from tests.integration.harness import CHAT, STREAM, until
from tests.integration.process import serve


async def test_metrics_add_up_whichever_worker_is_scraped(world, tmp_path):
    backends = {name: await world.simulator(name) for name in ("phi-3-mini", "mistral-7b")}
    urls = {name: server.url for name, server in backends.items()}
    async with serve(tmp_path, urls, "--workers", 2) as served:
        await until(
            lambda: (
                sum("Application startup complete" in line for line in served.process.lines) == 2
            ),
            "both workers",
            seconds=60,
        )
        models = ("auto", "auto:accuracy", "phi-3-mini", "nope")

        async def ask(k):
            body = (STREAM if k % 2 else CHAT) | {"model": models[k // 2 % 4], "max_tokens": 5}
            async with (
                # A connection each, so that both workers get their share.
                aiohttp.ClientSession(headers={"connection": "close"}) as http,
                http.post(f"{served.url}/v1/chat/completions", json=body) as response,
            ):
                await response.read()
                return response.status

        statuses = []
        for start in range(0, 200, 20):
            statuses += await asyncio.gather(*(ask(k) for k in range(start, start + 20)))
        assert statuses.count(200) == 150
        assert statuses.count(404) == 50

        async def counted():
            return await served.metric("joulegate_requests_total") == 200

        # What the other worker has done is booked a tenth of a second later.
        await until(counted, "the sum")
        # Scraped often enough that each worker answers some.
        for _ in range(8):
            assert await served.metric("joulegate_requests_total") == 200
            assert await served.metric("joulegate_requests_total", code="200") == 150
            assert await served.metric("joulegate_requests_total", requested="other") == 50
            assert await served.metric("joulegate_request_duration_seconds_count") == 150
            assert await served.metric("joulegate_tokens_total", type="completion") == 750

        async def settled():
            up = await served.metric("joulegate_backend_up")
            return (up, await served.metric("joulegate_backend_inflight")) == (2, 0)

        await until(settled, "the gauges")
        # Each worker serves the one version there is.
        assert await served.metric("joulegate_profile_info") == 2
        served.process.send(signal.SIGTERM)
        assert await served.process.ended() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert not served.process.said("Traceback")


async def test_a_worker_that_dies_takes_nothing_along(world, tmp_path):
    simulator = await world.simulator()
    async with serve(tmp_path, {"phi-3-mini": simulator.url}, "--workers", 2) as served:

        async def ask():
            try:
                async with (
                    aiohttp.ClientSession(headers={"connection": "close"}) as http,
                    http.post(f"{served.url}/v1/chat/completions", json=CHAT) as response,
                ):
                    return (await response.json())["model"]
            except (aiohttp.ClientError, OSError):
                return None

        for _ in range(10):
            assert await ask() == "phi-3-mini"

        async def counted():
            return await served.metric("joulegate_requests_total") == 10

        await until(counted, "the sum")
        pids = {m for line in served.process.lines if (m := started(line))}
        killed = pids.pop()
        os.kill(killed, signal.SIGKILL)

        def replaced():
            return len({m for line in served.process.lines if (m := started(line))}) == 3

        await until(replaced, "a new worker", seconds=60)

        async def answers():
            return all([await ask() == "phi-3-mini" for _ in range(4)])

        await until(answers, "answers", seconds=60)
        # A counter never falls: what the dead worker counted stays.
        assert await served.metric("joulegate_requests_total") >= 10


def started(line):
    found = re.search(r"Started server process \[(\d+)\]", line)
    return int(found[1]) if found else None
