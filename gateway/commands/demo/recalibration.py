"""`joulegate demo --loop`: a model changes, figures drift, recalibration finds it, routing moves.

Three streams of requests go through the gateway all the time, each weighting one metric only. Their
answers are longer than the profile expects, which is learnt while serving. The simulator's true
costs are changed under them; everything else happens as it would in production: the same metrics,
`joulegate recalibrate` as a command of its own, the profile file that is swapped.
"""

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp

from backends.simulator.server import RunningSimulator
from gateway.commands.demo.scraper import ScrapedSamples, serve_queries
from gateway.console import FAILED, OK, out
from gateway.service.client import headers as names
from gateway.telemetry.ols_sums import METRIC_NAME

_SCRAPE_SECONDS = 0.5
_SHOW_SECONDS = 3.0
_SENDERS = {"accuracy": 3, "energy": 6, "time": 4}
_SETTLE_SECONDS = 4.0
"""From a change until what was measured before it is settled and summed."""
_WATCH_SECONDS = 15.0
"""What a refit sees: twice the blocks of a second that it wants, should scrapes come late."""
_TOLD = ("live is off", "passed", "wrote")
"""The lines of the report that matter here."""
_WORDS = "the gateway measures what a model spends and moves its traffic to where it is spent best "
_STREAMS = tuple(_SENDERS)
WATCHED = "phi-3-mini"


class DemoPhase(NamedTuple):
    """A change of the truth, and what should come of it."""

    title: str
    seconds: float
    joules: float
    moves: str | None
    """The stream whose requests should go elsewhere once the change is known."""


PHASES = (
    DemoPhase(
        "the shipped profile was fitted to one request at a time; this is traffic", 1, 1, None
    ),
    DemoPhase(f"{WATCHED} becomes 2 times as slow", 2, 1, "time"),
    DemoPhase(f"{WATCHED} uses 2.5 times the energy as well", 2, 2.5, "energy"),
)


class DemoTraffic:
    """Requests without end; `chosen` counts who answered which stream since it was last cleared."""

    def __init__(self, base: str) -> None:
        self.chosen: dict[str, Counter[str]] = {stream: Counter() for stream in _STREAMS}
        self.failed = 0
        self.sent = 0
        self._url = f"{base}/v1/chat/completions"
        self._random = random.Random(1)  # noqa: S311 - a demonstration

    async def run(self) -> None:
        """Send until cancelled."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
            asyncio.TaskGroup() as senders,
        ):
            for stream in _STREAMS:
                for _ in range(_SENDERS[stream]):
                    senders.create_task(self._send_requests(http, stream))

    async def _send_requests(self, http: aiohttp.ClientSession, stream: str) -> None:
        headers = {f"x-joulegate-weight-{stream}": "1"}
        while True:
            body = {
                "model": "auto",
                "max_tokens": self._random.randint(10, 80),
                "messages": [{"role": "user", "content": _WORDS * self._random.randint(1, 12)}],
            }
            async with http.post(self._url, json=body, headers=headers) as response:
                await response.read()
                self.sent += 1
                if response.ok:
                    self.chosen[stream][response.headers[names.MODEL]] += 1
                else:
                    self.failed += 1

    def compute_share(self, stream: str, model: str) -> float:
        """Return how much of a stream a model has answered since the last `clear_counts`."""
        found = self.chosen[stream]
        return found[model] / found.total() if found else 0.0

    def clear_counts(self) -> None:
        """Count anew."""
        for found in self.chosen.values():
            found.clear()


class PredictionBias:
    """Observed over predicted since `mark_start`, by quantity, from the gateway's own counters."""

    def __init__(self, samples: ScrapedSamples) -> None:
        self._samples = samples
        self._from: dict[tuple[str, str], float] = {}

    def mark_start(self) -> None:
        """Count from here."""
        self._from = {
            (side, quantity): self._read_total(side, quantity)
            for side in ("observed", "predicted")
            for quantity in ("seconds", "joules")
        }

    def compute_ratio(self, quantity: str) -> float | None:
        """Return the ratio; None where nothing was observed."""
        observed, predicted = (
            self._read_total(side, quantity) - self._from[side, quantity]
            for side in ("observed", "predicted")
        )
        return observed / predicted if predicted > 0.0 else None

    @property
    def alarm_count(self) -> int:
        """How often the tests for drift have given an alarm since the start, all models."""
        series = self._samples.latest.get("joulegate_prediction_drift_alarms_total", {})
        return round(sum(series.values()))

    def _read_total(self, side: str, quantity: str) -> float:
        series = self._samples.latest.get(f"joulegate_prediction_{side}_{quantity}_total", {})
        labels = (("model", WATCHED), ("profile", "live"))
        return series.get(labels, 0.0)


async def run(base: str, profile: Path, changing: RunningSimulator) -> int:
    """Show the circle; the exit code tells whether routing moved as it should."""
    kept = (METRIC_NAME, "joulegate_deployment_info")
    samples = ScrapedSamples(f"{base}/metrics", *kept, scrape_seconds=_SCRAPE_SECONDS)
    traffic = DemoTraffic(base)
    truth = changing.spec.truth
    began = time.monotonic()
    moved = True
    out.print(f"  {await _describe_length(base)}")
    async with _run_traffic(traffic, samples) as prometheus:
        bias = PredictionBias(samples)
        for phase in PHASES:
            out.print(f"\n[bold]{_format_elapsed(began)} {phase.title}[/]")
            changing.set_cost_model(truth.scale_costs(seconds=phase.seconds, joules=phase.joules))
            await asyncio.sleep(_SETTLE_SECONDS)
            window = await _watch_figures(traffic, bias, began, _WATCH_SECONDS)
            if phase.moves is None:
                out.print(f"{_format_elapsed(began)} {await _describe_length(base)}")
            out.print(f"{_format_elapsed(began)} joulegate recalibrate --window {window}")
            if not await _run_recalibration(prometheus, profile, window):
                return FAILED
            await asyncio.sleep(_SETTLE_SECONDS)
            await _watch_figures(traffic, bias, began, 6.0)
            if phase.moves is not None:
                share = 1.0 - traffic.compute_share(phase.moves, WATCHED)
                moved = moved and share > 0.5  # noqa: PLR2004 - most of it
                out.print(f"  requests that care for {phase.moves} leave {WATCHED}: {share:.0%}")
    out.print(
        f"\n{_format_elapsed(began)} {traffic.sent} requests, {traffic.failed} of them failed"
    )
    return OK if moved and not traffic.failed else FAILED


async def _describe_length(base: str) -> str:
    """Return how long the gateway expects the traffic's answers to be, and what told it so."""
    body = {"model": WATCHED, "messages": [{"role": "user", "content": _WORDS * 6}]}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{base}/v1/route", json=body) as response,
    ):
        tokens = (await response.json())["tokens"]
    return (
        f"answers of {WATCHED}: {tokens['output']} tokens expected, 90% within "
        f"{tokens['output_p90']} (by the {tokens['source']})"
    )


@contextlib.asynccontextmanager
async def _run_traffic(traffic: DemoTraffic, samples: ScrapedSamples) -> AsyncIterator[str]:
    """Send and scrape meanwhile; yields where samples are queried."""
    runner, url = await serve_queries(samples)
    tasks = [asyncio.create_task(traffic.run()), asyncio.create_task(samples.run())]
    try:
        yield url
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()


async def _watch_figures(
    traffic: DemoTraffic, bias: PredictionBias, began: float, seconds: float
) -> str:
    """Show the figures as they come; returns the window that was watched."""
    traffic.clear_counts()
    bias.mark_start()
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        await asyncio.sleep(min(_SHOW_SECONDS, seconds - passed))
        shares = "  ".join(
            f"{stream} to "
            + "/".join(f"{m} {traffic.compute_share(stream, m):.0%}" for m in _list_models(found))
            for stream, found in traffic.chosen.items()
        )
        ratios = "  ".join(
            f"{quantity} "
            + ("-" if (ratio := bias.compute_ratio(quantity)) is None else f"{ratio:.2f}x")
            for quantity in ("seconds", "joules")
        )
        alarms = f"drift alarms {bias.alarm_count}"
        out.print(f"  {_format_elapsed(began)} {WATCHED} observed/predicted: {ratios}; {alarms}")
        out.print(f"            requests that care for {shares}")
    return f"{round(time.monotonic() - start)}s"


def _list_models(found: Counter[str]) -> list[str]:
    return [model for model, _ in found.most_common()]


async def _run_recalibration(prometheus: str, profile: Path, window: str) -> bool:
    """Run the command as an operator or a CronJob would; tell whether it adopted a profile."""
    argv = ("-m", "gateway.cli", "recalibrate", "--prometheus", prometheus, "--window", window)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, "--profile", str(profile), "--min-requests", "50", "--block", "1s",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed, _ = await process.communicate()
    for line in printed.decode().splitlines():
        if any(word in line for word in _TOLD) or process.returncode != OK:
            out.print(f"            {line}", markup=False, style="dim")
    return process.returncode == OK


def _format_elapsed(began: float) -> str:
    return f"[{time.monotonic() - began:5.1f} s]".replace("[", "\\[")
