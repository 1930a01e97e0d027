"""Enough of Prometheus for a demonstration: it scrapes one gateway and gives raw samples back.

It keeps a few metrics for ten minutes and answers `metric{label="value"}[window]` at a moment: all
that `joulegate recalibrate` asks. Anything more wants the real one.
"""

import asyncio
import re
import time
from collections import deque

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

_KEPT_SECONDS = 600.0
_MATCHER = r'\s*\w+\s*=\s*"[^"\\]*"\s*'
_QUERY = re.compile(rf"([a-zA-Z_:][\w:]*)(?:\{{((?:{_MATCHER},?)*)\}})?\[(\d+)(ms|s|m|h)\]")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_JOB = (("instance", "demo"), ("job", "joulegate"))

Labels = tuple[tuple[str, str], ...]


class ScrapedSamples:
    """Scrapes `metrics` from a page; answers queries as `handler` of POST /api/v1/query."""

    def __init__(self, page: str, *metrics: str, scrape_seconds: float) -> None:
        self.latest: dict[str, dict[Labels, float]] = {}
        """Every counter and gauge of the last scrape, by name."""
        self._page = page
        self._metrics = metrics
        self._scrape_seconds = scrape_seconds
        self._series: dict[tuple[str, Labels], deque[tuple[float, float]]] = {}

    async def run(self) -> None:
        """Scrape until cancelled."""
        async with aiohttp.ClientSession() as http:
            while True:
                await self.scrape_once(http)
                await asyncio.sleep(self._scrape_seconds)

    async def scrape_once(self, http: aiohttp.ClientSession) -> None:
        """Read the page once."""
        at = time.time()
        async with http.get(self._page) as response:
            text = await response.text()
        latest: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                latest.setdefault(sample.name, {})[labels] = sample.value
        self.latest = latest
        for metric in self._metrics:
            for labels, value in latest.get(metric, {}).items():
                kept = self._series.setdefault((metric, labels), deque())
                kept.append((at, value))
                while kept[0][0] < at - _KEPT_SECONDS:
                    kept.popleft()

    async def handle_query(self, request: web.Request) -> web.Response:
        """Answer a query as Prometheus does."""
        form = await request.post()
        asked = _QUERY.fullmatch(str(form.get("query", "")))
        if asked is None or asked[1] not in self._metrics:
            error = f"only {' and '.join(self._metrics)}[window] are answered here"
            return web.json_response({"status": "error", "error": error}, status=400)
        until = float(str(form.get("time", time.time())))
        since = until - int(asked[3]) * _SECONDS[asked[4]]
        wanted = set(re.findall(r'(\w+)\s*=\s*"([^"]*)"', asked[2] or ""))
        result = [
            {
                "metric": {"__name__": metric, **dict(labels + _JOB)},
                "values": [[at, repr(value)] for at, value in kept if since < at <= until],
            }
            for (metric, labels), kept in self._series.items()
            if metric == asked[1] and wanted <= {*labels, *_JOB}
        ]
        data = {"resultType": "matrix", "result": result}
        return web.json_response({"status": "success", "data": data})


async def serve_queries(samples: ScrapedSamples) -> tuple[web.AppRunner, str]:
    """Serve the queries on a free port of loopback; the caller cleans the runner up."""
    app = web.Application()
    app.add_routes([web.post("/api/v1/query", samples.handle_query)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"
