"""How far metered joules are from the truth: simulated backends, a meter, a gateway, over sockets.

`python -m tests.bench energy`. The simulator knows what each request really cost; its metered
joules are read from the gateway's decision log. Backends, meter and client are one process, the
gateway is another. All levels run side by side, each with a backend of its own.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections import Counter
from typing import Any, NamedTuple

import aiohttp

from tests.bench import levels, machine, serving
from tests.bench.report import say, share_of, table

_LEVELS = (1, 8, 32, 128)
_SETTLE_SECONDS = 20.0
_WORD = " word"
"""A token of the simulator, and of the gateway that counts before it knows."""


class Asked(NamedTuple):
    """A request that was answered, and what it truly cost."""

    level: int
    began: float
    ended: float
    joules: float


class Bench:
    """One run: the same load at each period of the counter."""

    def __init__(self, *, seconds: float, noise: float) -> None:
        self._seconds = seconds
        self._noise = noise
        self._cores = machine.cores()
        self.rows: list[dict[str, Any]] = []

    def run(self) -> None:
        """Measure."""
        os.sched_setaffinity(0, {self._cores.load})
        for period in (0.1, 1.0):
            say(f"counter of {period:g} s, {self._seconds:g} s")
            asyncio.run(self._measure(period))

    async def _measure(self, period: float) -> None:
        made = levels.served(self._cores.gateway, _LEVELS, noise=self._noise, period_seconds=period)
        async with made as served:
            await asyncio.sleep(3.0)  # the meter finds its counters' period
            asked = await self._load(served.port)
            log = served.folder / "decisions.jsonl"
            lines = await levels.logged(log, len(asked), seconds=_SETTLE_SECONDS)
        observed = {name: line["observed"] for name, line in lines.items()}
        self.rows += [_row(period, level, asked, observed) for level in _LEVELS]

    async def _load(self, port: int) -> dict[str, Asked]:
        """Keep so many requests going for each level, then let them end."""
        asked: dict[str, Asked] = {}
        until = time.monotonic() + self._seconds
        rng = random.Random(1)
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(limit=0)
        base = f"http://{serving.HOST}:{port}"
        async with aiohttp.ClientSession(base, timeout=timeout, connector=connector) as http:
            lines = (
                self._line(http, level, place, until, rng, asked)
                for level in _LEVELS
                for place in range(level)
            )
            await asyncio.gather(*lines)
        return asked

    async def _line(
        self,
        http: aiohttp.ClientSession,
        level: int,
        place: int,
        until: float,
        rng: random.Random,
        asked: dict[str, Asked],
    ) -> None:
        count = 0
        while (began := time.monotonic()) < until:
            name = f"{level}-{place}-{count}"
            asked[name] = Asked(level, began, *await _ask(http, name, level, rng))
            count += 1


async def _ask(
    http: aiohttp.ClientSession, name: str, level: int, rng: random.Random
) -> tuple[float, float]:
    """Ask for a stream; return when it ended and its true joules."""
    body = {
        "model": levels.name(level),
        "messages": [{"role": "user", "content": _WORD * rng.randint(*levels.PROMPT_TOKENS)}],
        "max_tokens": rng.randint(*levels.ANSWER_TOKENS),
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"x-request-id": name}
    last = b""
    async with http.post("/v1/chat/completions", json=body, headers=headers) as response:
        async for line in response.content:
            if b'"simulated"' in line:
                last = line
    return time.monotonic(), json.loads(last.removeprefix(b"data: "))["simulated"]["energy_joules"]


def _row(
    period: float, level: int, asked: dict[str, Asked], observed: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Judge one level by the requests that were over before its company grew less."""
    mine = {name: one for name, one in asked.items() if one.level == level}
    emptying = max(one.began for one in mine.values())
    kept = [n for n, one in mine.items() if level == 1 or one.ended < emptying]
    methods = Counter(observed[name]["method"] for name in kept)
    errors = [abs(observed[n]["joules"] / mine[n].joules - 1) for n in kept]
    metered = sum(observed[name]["joules"] for name in mine)
    true = sum(one.joules for one in mine.values())
    return {
        "period_seconds": period,
        "level": level,
        "requests": len(kept),
        "median": statistics.median(errors),
        "p95": share_of(errors, 0.95),
        "sum": metered / true - 1,
        "methods": {method: count / len(kept) for method, count in methods.items()},
    }


def show(rows: list[dict[str, Any]]) -> str:
    """Return the run as text."""
    about = "\n".join(f"{key:12} {value}" for key, value in machine.describe().items())
    cells = [
        (
            f"{row['period_seconds']:g} s",
            str(row["level"]),
            str(row["requests"]),
            f"{row['median']:.2%}",
            f"{row['p95']:.2%}",
            f"{row['sum']:+.2%}",
            ", ".join(f"{name} {share:.0%}" for name, share in sorted(row["methods"].items())),
        )
        for row in rows
    ]
    head = ("counter", "in flight", "requests", "median error", "p95 error", "sum", "method")
    return f"{about}\n\n{table(head, cells)}"


def main(arguments: list[str]) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench energy", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--seconds", type=float, default=75.0, help="of load at each period")
    parser.add_argument("--noise", type=float, default=0.0, help="spread of requests' true costs")
    given = parser.parse_args(arguments)
    bench = Bench(seconds=given.seconds, noise=given.noise)
    bench.run()
    print(json.dumps(bench.rows, indent=2) if given.json else show(bench.rows))
    return 0
