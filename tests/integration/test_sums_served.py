"""The regression sums as a gateway of several workers shows them, after requests and a death."""

import asyncio
import os
import re
import signal

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.ols_sums import METRIC_NAME
from tests.integration.harness import CHAT, STREAM, until
from tests.integration.process import serve


async def sums_of(served):
    """{(basis, quantity, term): value} of the one deployment."""
    _, page = await served.get("/metrics")
    return {
        (one.labels["basis"], one.labels["quantity"], one.labels["term"]): one.value
        for family in text_string_to_metric_families(page.decode())
        for one in family.samples
        if one.name == METRIC_NAME
    }


async def test_two_workers_show_one_set_of_sums_and_keep_those_of_the_dead(world, tmp_path):
    simulator = await world.simulator("phi-3-mini")
    async with serve(tmp_path, {"phi-3-mini": simulator.url}, "--workers", 2) as served:
        lines = served.process.lines

        def started():
            return sum("Application startup complete" in line for line in lines)

        await until(lambda: started() == 2, "both workers", seconds=60)
        blank = await sums_of(served)
        assert len(blank) == 2 * 40 + 2 * 4 + 6 + 43 + 10
        assert not any(blank.values())

        async def ask(k):
            body = (STREAM if k % 2 else CHAT) | {"model": "phi-3-mini", "max_tokens": 3 + k % 5}
            async with (
                aiohttp.ClientSession(headers={"connection": "close"}) as http,
                http.post(f"{served.url}/v1/chat/completions", json=body) as response,
            ):
                await response.read()
                assert response.status == 200
            return body["max_tokens"]

        asked = []
        for start in range(0, 60, 20):
            asked += await asyncio.gather(*map(ask, range(start, start + 20)))

        async def counted(rows):
            return (await sums_of(served))["costs", "seconds", "n"] == rows

        await until(lambda: counted(60), "the sum")
        page = await sums_of(served)
        assert page["costs", "seconds", "o"] == sum(asked)
        assert page["costs", "seconds", "o2"] == sum(count**2 for count in asked)
        assert page["costs", "seconds", "y"] > 0
        # Nothing measures joules here, and every answer was cut by what was asked.
        assert page["costs", "joules", "n"] == page["output", "tokens", "n"] == 0
        assert sum(page["output", "tokens", f"cut{k}"] for k in range(20)) == 60
        assert page["prompt", "tokens", "n"] == 60
        # What a worker has done is in its file a second later at most.
        await asyncio.sleep(1.5)
        pids = [int(m[1]) for line in lines if (m := re.search(r"server process \[(\d+)\]", line))]
        os.kill(pids[0], signal.SIGKILL)
        await until(lambda: started() == 3, "a new worker", seconds=60)
        for _ in range(6):
            assert await sums_of(served) == page
        await ask(1)
        await until(lambda: counted(61), "one more")
