"""What stands in for Prometheus in the demo gives raw samples as Prometheus does."""

import asyncio
import time

import aiohttp
import pytest
from aiohttp import web

from calibration.recalibrate.prometheus import PrometheusClient, PrometheusError
from gateway.commands.demo.scraper import ScrapedSamples, serve_queries
from tests.waiting import until

METRIC = "joulegate_ols_sum_total"


@pytest.fixture
async def page():
    """A page with two series of the metric and one of another; each look at it counts on."""
    shown = {"value": 0}

    async def answer(_):
        shown["value"] += 1
        lines = [f"# TYPE {METRIC} counter"]
        lines += [
            f'{METRIC}{{basis="{basis}",term="n"}} {shown["value"] * factor}'
            for basis, factor in (("costs", 1), ("rows", 0.1))
        ]
        return web.Response(text="\n".join([*lines, "# TYPE other gauge", "other 5", ""]))

    app = web.Application()
    app.add_routes([web.get("/metrics", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    await runner.cleanup()


async def test_raw_samples_come_back_by_label_and_window(page):
    samples = ScrapedSamples(page, METRIC, scrape_seconds=3600)
    runner, url = await serve_queries(samples)
    async with aiohttp.ClientSession() as http:
        for _ in range(3):
            await samples.scrape_once(http)
            await asyncio.sleep(0.01)
    assert samples.latest["other"] == {(): 5.0}

    async def ask(selector, window="1m", at=None):
        with PrometheusClient(url) as prometheus:
            return await asyncio.to_thread(
                prometheus.query_samples, selector, window, at or time.time() + 1
            )

    found = await ask(f'{METRIC}{{basis="rows"}}')
    (series,) = found.series
    assert series.metric["basis"] == "rows"
    assert series.metric["instance"] == "demo"
    values = [(at, float(value)) for at, value in series.values]
    # A tenth of a counter comes back to the last bit.
    assert [value for _, value in values] == [1 * 0.1, 2 * 0.1, 3 * 0.1]
    assert values == sorted(values)
    assert len((await ask(METRIC)).series) == 2
    assert (await ask(METRIC, at=time.time() - 100)).series[0].values == []
    for selector in ("other", f"rate({METRIC}"):
        with pytest.raises(PrometheusError, match="only joulegate_ols_sum_total"):
            await ask(selector)
    await runner.cleanup()


async def test_queries_of_one_client_share_a_connection(page):
    runner, url = await serve_queries(ScrapedSamples(page, METRIC, scrape_seconds=3600))
    with PrometheusClient(url) as prometheus:
        for at in (1.0, 2.0, 3.0):
            await asyncio.to_thread(prometheus.query_samples, METRIC, "1m", at)
        assert len(runner.server.connections) == 1
        assert runner.server.requests_count == 3
    await until(lambda: not runner.server.connections, "the connection to close")
    await runner.cleanup()
