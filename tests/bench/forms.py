"""What knowing the load is worth: the joules of requests at 1, 8, 32 and 64 in flight, predicted.

`python -m tests.bench forms`. A metered gateway's sums of the first half of a run are scraped and
refitted as recalibration does, once over all levels (the form `load`) and once over those requests
that ran alone (`interaction`). Both predict the second half, whose true joules the simulator tells.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections import defaultdict
from typing import Any, NamedTuple

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from calibration.recalibrate import sums
from calibration.recalibrate.form_choice import RefitRules
from calibration.recalibrate.limits import PriorSettings
from calibration.recalibrate.prometheus import Series
from calibration.recalibrate.refit import refit_cost
from gateway import profile as profiles
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COSTS
from tests.bench import levels, machine, serving
from tests.bench.report import say, share_of, table

_LEVELS = (1, 8, 32, 64)
_SPEED = 20.0
_HZ = 200.0
_SCRAPE_SECONDS = 1.0
_SETTLE_SECONDS = 30.0
_BLOCKS = 8
"""Of time, in the half that is fitted."""
_WORD = " joule"
"""A token of the simulator's."""
_MOST = 1 / 3
"""Of the error of the form that does not know the load."""


class Asked(NamedTuple):
    """A request that was answered, and what it truly cost."""

    level: int
    began: float
    joules: float


class Bench:
    """One run."""

    def __init__(self, *, seconds: float, noise: float) -> None:
        self._seconds = seconds
        self._noise = noise
        self._cores = machine.cores()
        self._pages: list[tuple[float, str]] = []
        self._asked: dict[str, Asked] = {}
        self.rows: list[dict[str, Any]] = []

    def run(self) -> None:
        """Measure."""
        os.sched_setaffinity(0, {self._cores.load})
        say(f"{self._seconds:g} s of load")
        half, logged = asyncio.run(self._measure())
        forms = {
            "alone": _fit(self._pages, half, (1,), RegressionForm.INTERACTION, self._seconds / 2),
            "load": _fit(self._pages, half, _LEVELS, RegressionForm.LOAD, self._seconds / 2),
        }
        errors: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for name, one in self._asked.items():
            if one.began > half:
                usage, running = logged[name]["usage"], logged[name]["running"]
                for form, cost in forms.items():
                    predicted = cost.predict_cost(
                        usage["prompt_tokens"], usage["completion_tokens"], running
                    )
                    errors[one.level][form].append(abs(predicted / one.joules - 1.0))
        self.rows = [_row(str(level), errors[level]) for level in _LEVELS]
        pooled = {form: [e for level in _LEVELS for e in errors[level][form]] for form in forms}
        self.rows.append(_row("all", pooled))

    async def _measure(self) -> tuple[float, dict[str, dict[str, Any]]]:
        """Serve; return when the second half began, and the decision log by request."""
        made = levels.served(self._cores.gateway, _LEVELS, noise=self._noise, speed=_SPEED, hz=_HZ)
        async with made as served:
            timeout = aiohttp.ClientTimeout(total=None)
            connector = aiohttp.TCPConnector(limit=0)
            base = f"http://{serving.HOST}:{served.port}"
            async with aiohttp.ClientSession(base, timeout=timeout, connector=connector) as http:
                half = await self._load(http)
            log = served.folder / "decisions.jsonl"
            logged = await levels.logged(log, len(self._asked), seconds=_SETTLE_SECONDS)
        return half, logged

    async def _load(self, http: aiohttp.ClientSession) -> float:
        """Keep so many requests going at each level, scraping meanwhile."""
        began = time.monotonic()
        until = began + self._seconds
        scraping = asyncio.create_task(self._scrape(http))
        rng = random.Random(1)
        lines = (
            self._line(http, level, f"{level}-{place}", until, rng)
            for level in _LEVELS
            for place in range(level)
        )
        await asyncio.gather(*lines)
        scraping.cancel()
        return began + self._seconds / 2

    async def _scrape(self, http: aiohttp.ClientSession) -> None:
        while True:
            async with http.get("/metrics") as response:
                self._pages.append((time.monotonic(), await response.text()))
            await asyncio.sleep(_SCRAPE_SECONDS)

    async def _line(
        self, http: aiohttp.ClientSession, level: int, name: str, until: float, rng: random.Random
    ) -> None:
        count = 0
        while (began := time.monotonic()) < until:
            body = {
                "model": levels.name(level),
                "messages": [
                    {"role": "user", "content": _WORD * rng.randint(*levels.PROMPT_TOKENS)}
                ],
                "max_tokens": rng.randint(*levels.ANSWER_TOKENS),
                "ignore_eos": True,
            }
            headers = {"x-request-id": f"{name}-{count}"}
            async with http.post("/v1/chat/completions", json=body, headers=headers) as response:
                answer = await response.json()
            joules = answer["simulated"]["energy_joules"]
            self._asked[f"{name}-{count}"] = Asked(level, began, joules)
            count += 1


def _fit(
    pages: list[tuple[float, str]],
    half: float,
    among: tuple[int, ...],
    form: RegressionForm,
    half_seconds: float,
) -> CostFunction:
    """Refit the joules out of what was scraped of these levels in the first half."""
    samples: dict[tuple[tuple[str, str], ...], list[tuple[float, str]]] = defaultdict(list)
    for at, page in pages:
        if at <= half:
            mine = "\n".join(line for line in page.splitlines() if sums.SUMS_METRIC in line)
            for family in text_string_to_metric_families(mine + "\n"):
                for one in family.samples:
                    if (one.labels["basis"], one.labels["quantity"]) == (COSTS, "joules"):
                        samples[tuple(one.labels.items())].append((at, repr(one.value)))
    blocks = sums.read_blocks(COSTS, [Series(dict(key), found) for key, found in samples.items()])
    block = sums.merge_blocks([blocks[levels.name(level), levels.name(level)] for level in among])
    live = profiles.load_profile(None).get_model(levels.MODEL).joules
    rules = RefitRules(
        form=form,
        prior_settings=PriorSettings(prior_requests=0.0),
        max_change=1e9,
        block_seconds=half_seconds / _BLOCKS,
    )
    found = refit_cost(CostQuantity.JOULES, block, live, rules)
    return CostFunction(CostQuantity.JOULES, found.form, tuple(found.coefficients))


def _row(level: str, errors: dict[str, list[float]]) -> dict[str, Any]:
    without, knowing = (statistics.median(errors[form]) for form in ("alone", "load"))
    return {
        "level": level,
        "requests": len(errors["load"]),
        "interaction": without,
        "load": knowing,
        "load_p95": share_of(errors["load"], 0.95),
        "ratio": knowing / without,
    }


def show(rows: list[dict[str, Any]]) -> str:
    """Return the run as text."""
    about = "\n".join(f"{key:12} {value}" for key, value in machine.describe().items())
    cells = [
        (
            row["level"],
            str(row["requests"]),
            f"{row['interaction']:.1%}",
            f"{row['load']:.1%}",
            f"{row['load_p95']:.1%}",
            f"{row['ratio']:.3f}",
        )
        for row in rows
    ]
    head = ("in flight", "requests", "fitted alone", "load", "load p95", "ratio")
    kept = "yes" if rows[-1]["ratio"] <= _MOST else "NO"
    what = "median error in joules of the load form, of all: at most a third of the other's"
    return f"{about}\n\n{table(head, cells)}\n\n{what}: {kept}"


def main(arguments: list[str]) -> int:
    """Read the arguments, measure, print; 1 where the bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench forms", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--seconds", type=float, default=90.0, help="of load")
    parser.add_argument("--noise", type=float, default=0.0, help="spread of requests' true costs")
    given = parser.parse_args(arguments)
    bench = Bench(seconds=given.seconds, noise=given.noise)
    bench.run()
    print(json.dumps(bench.rows, indent=2) if given.json else show(bench.rows))
    return 0 if bench.rows[-1]["ratio"] <= _MOST else 1
