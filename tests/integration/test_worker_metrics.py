"""What two workers' shared metrics page says, and goes on to say when one of them is killed."""

import asyncio
import contextlib
import math
import os
import re
import signal
from collections import defaultdict
from pathlib import Path

import aiohttp
import pytest

from tests.integration.harness import CHAT, ENDLESS, STREAM, total, until
from tests.integration.process import serve

NEVER = 3600.0


def pids(process):
    found = (re.search(r"Started server process \[(\d+)\]", line) for line in process.lines)
    return [int(match[1]) for match in found if match]


async def both(served):
    """Wait for both workers."""

    def started():
        lines = served.process.lines
        return sum("Application startup complete" in line for line in lines) >= 2

    await until(started, "both workers", seconds=60)


async def page_of(served):
    _, page = await served.get("/metrics")
    return page.decode()


def histograms(page):
    """Every histogram series: (name, labels without `le`) -> {le: count}, and _count and _sum."""
    names = re.findall(r"^# TYPE (\S+) histogram$", page, re.MULTILINE)
    found = defaultdict(dict)
    for line in page.splitlines():
        match = re.fullmatch(r"(\w+?)_(bucket|count|sum)(?:\{(.*)\})? (\S+)", line)
        if match is None or match[1] not in names:
            continue
        name, part, labels, value = match.groups()
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels or ""))
        bound = pairs.pop("le", None)
        key = name, tuple(sorted(pairs.items()))
        found[key][math.inf if bound == "+Inf" else float(bound) if bound else part] = float(value)
    return names, found


def check_histograms(page):
    names, found = histograms(page)
    assert {name for name, _ in found} >= {
        "joulegate_request_duration_seconds",
        "joulegate_decision_duration_seconds",
        "joulegate_request_energy_joules",
        "joulegate_request_predicted_energy_joules",
        "joulegate_predicted_duration_seconds",
    }
    assert len(names) == len(set(names))
    for key, series in found.items():
        assert {"count", "sum"} <= series.keys(), key
        bounds = sorted(bound for bound in series if bound not in ("count", "sum"))
        assert len(bounds) > 5, key
        assert bounds[-1] == math.inf, key
        counts = [series[bound] for bound in bounds]
        assert counts == sorted(counts), (key, counts)
        assert counts[-1] == series["count"], (key, counts)
        assert (series["sum"] > 0) is (series["count"] > 0), key
    lines = [line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines)), "a series is there twice"


async def test_histograms_are_cumulative_and_predictions_add_up(world, tmp_path):
    backends = {name: await world.simulator(name) for name in ("phi-3-mini", "mistral-7b")}
    urls = {name: server.url for name, server in backends.items()}
    async with serve(tmp_path, urls, "--workers", 2) as served:
        await both(served)

        async def ask(k):
            name = ("phi-3-mini", "mistral-7b")[k % 3 == 0]
            body = (STREAM if k % 2 else CHAT) | {"model": name, "max_tokens": 3 + k % 5}
            async with (
                aiohttp.ClientSession(headers={"connection": "close"}) as http,
                http.post(f"{served.url}/v1/chat/completions", json=body) as response,
            ):
                await response.read()
                assert response.status == 200
                return name, float(response.headers["x-joulegate-predicted-joules"])

        predicted = defaultdict(float)
        for start in range(0, 60, 20):
            for name, joules in await asyncio.gather(*map(ask, range(start, start + 20))):
                predicted[name] += joules

        async def counted():
            return await served.metric("joulegate_request_duration_seconds_count") == 60

        await until(counted, "the sum")
        for _ in range(6):
            page = await page_of(served)
            check_histograms(page)
            for name, joules in predicted.items():
                shown = total(page, "joulegate_predicted_energy_joules_total", model=name)
                assert shown == pytest.approx(joules, rel=1e-3)
                summed = total(page, "joulegate_request_predicted_energy_joules_sum", model=name)
                assert shown == pytest.approx(summed, rel=1e-6)


async def kill_one(served, expected):
    """Kill the busier worker and wait for the one in its place."""
    killed = max(pids(served.process), key=lambda pid: len([*Path(f"/proc/{pid}/fd").iterdir()]))
    os.kill(killed, signal.SIGKILL)
    await until(lambda: len(pids(served.process)) == expected, "a new worker", seconds=60)


async def test_streams_of_a_killed_worker_are_not_in_flight(world, tmp_path):
    simulator = await world.simulator(speed=1.0)
    async with serve(tmp_path, {"phi-3-mini": simulator.url}, "--workers", 2) as served:
        await both(served)
        open_streams = 0

        async def hold():
            nonlocal open_streams
            open_streams += 1
            try:
                async with (
                    aiohttp.ClientSession(headers={"connection": "close"}) as http,
                    http.post(
                        f"{served.url}/v1/chat/completions", json=STREAM | ENDLESS
                    ) as response,
                ):
                    async for _ in response.content:
                        pass
            except (aiohttp.ClientError, OSError):
                pass
            finally:
                open_streams -= 1

        tasks = [asyncio.create_task(hold()) for _ in range(24)]

        async def inflight(expected):
            return await served.metric("joulegate_backend_inflight") == expected

        await until(lambda: inflight(24), "all in flight")
        await kill_one(served, 3)
        await until(lambda: open_streams < 24, "streams to break")
        await until(
            lambda: (
                simulator.engine.running_requests + simulator.engine.waiting_requests
                == open_streams
            )
        )
        await until(lambda: inflight(open_streams), "only the survivor's")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: inflight(0), "none")


async def test_a_killed_worker_does_not_pin_a_backend_down(world, tmp_path):
    simulator = await world.simulator()
    health = {
        "probe_seconds": 0.1,
        "idle_probe_seconds": 0.1,
        "eject_after_failures": 1,
        "eject_seconds": 0.5,
        "eject_max_seconds": 0.5,
    }
    async with serve(
        tmp_path, {"phi-3-mini": simulator.url}, "--workers", 2, health=health
    ) as served:
        await both(served)

        async def up(expected):
            return await served.metric("joulegate_backend_up") == expected

        await until(lambda: up(1), "well at first")
        simulator.faults.set_fault("unhealthy")
        await until(lambda: up(0), "both workers to find it ill")
        # The gauges are published once a second: by then both say so.
        await asyncio.sleep(1.5)
        await kill_one(served, 3)
        simulator.faults.clear_faults()

        async def well():
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with (
                    aiohttp.ClientSession(headers={"connection": "close"}) as http,
                    http.post(
                        f"{served.url}/v1/chat/completions", json=CHAT | {"max_tokens": 1}
                    ) as response,
                ):
                    await response.read()
                return await up(1)
            return False

        await until(well, "nobody but the dead to say it is down")
