"""How far metered joules are from the physical truth: `python -m tests.bench energy`.

All kinds of traffic on a virtual clock, which gives the same figures on every machine. `--sockets`
adds a run of each kind over real sockets beside the same schedule in virtual time.
"""

import argparse
import json
from typing import Any

from tests.bench import energy_sockets, machine
from tests.bench.report import say, table
from tests.lab.metering import Meter
from tests.lab.results import LabRun
from tests.lab.scenarios import SCENARIOS, odd_cases, steady

_SEEDS = (1, 2, 3)


def judge(name: str, runs: list[LabRun], asked: str = "") -> dict[str, Any]:
    """A row: the worst of several seeds."""
    methods: dict[str, int] = {}
    for run in runs:
        for method, count in run.methods().items():
            methods[method] = methods.get(method, 0) + count
    total = sum(methods.values())
    backends = sorted({one.backend for one in runs[0].requests})
    sums = [
        run.sum_error(lambda one, name=name: one.backend == name)
        for run in runs
        for name in backends
    ]
    return {
        "name": name,
        "requests": total,
        "median": max(run.median_error() for run in runs),
        "p95": max(run.p95_error() for run in runs),
        "sum": max(sums, key=abs),
        "other": max(books.other_share for run in runs for books in run.counters.values()),
        "conserved": all(books.conserved for run in runs for books in run.counters.values()),
        "methods": {method: count / total for method, count in sorted(methods.items())},
        "asked": asked,
    }


def measure() -> dict[str, list[dict[str, Any]]]:
    """Every scenario at every seed."""
    rows = []
    for one in SCENARIOS:
        say(one.name)
        limits = [f"{one.median:.0%}", "" if one.p95 is None else f"{one.p95:.0%}"]
        rows.append(judge(one.name, [one.run(seed) for seed in _SEEDS], " / ".join(limits)))
    for period in (0.02, 0.1, 0.5, 1.0):
        say(f"counter of {period:g} s")
        meter = Meter(period_seconds=period)
        runs = [steady(4.0, seed, meter) for seed in _SEEDS]
        rows.append(judge(f"4 requests/s, counter of {period:g} s", runs))
    odd = [judge(name, [run]) for name, run in odd_cases().items()]
    return {"traffic": rows, "odd": odd}


def show(rows: list[dict[str, Any]]) -> str:
    """Return rows as text."""
    head = ("traffic", "requests", "median", "p95", "sum", "other", "method", "asked")
    cells = [
        (
            row["name"],
            str(row["requests"]),
            f"{row['median']:.2%}",
            f"{row['p95']:.2%}",
            f"{row['sum']:+.2%}",
            f"{row['other']:.2%}",
            ", ".join(f"{name} {share:.0%}" for name, share in row["methods"].items()),
            row["asked"],
        )
        for row in rows
    ]
    return table(head, cells)


def show_sockets(rows: list[dict[str, Any]]) -> str:
    """Return the comparison as text."""
    head = ("kind", "requests", "virtual: median, p95, sum", "sockets: median, p95, sum", "method")
    cells = [
        (
            row["kind"],
            str(row["requests"]),
            *(
                f"{row[way][0]:.2%}, {row[way][1]:.2%}, {row[way][2]:+.2%}"
                for way in ("virtual", "sockets")
            ),
            ", ".join(f"{name} {count}" for name, count in sorted(row["methods"].items())),
        )
        for row in rows
    ]
    return table(head, cells)


def main(arguments: list[str]) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench energy", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--sockets", action="store_true", help="over real sockets, beside virtual")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load over sockets")
    given = parser.parse_args(arguments)
    if given.sockets:
        rows = energy_sockets.compare(given.seconds)
        about = "\n".join(f"{key:12} {value}" for key, value in machine.describe().items())
        print(json.dumps(rows, indent=2) if given.json else f"{about}\n\n{show_sockets(rows)}")
        return 0
    measured = measure()
    if given.json:
        print(json.dumps(measured, indent=2))
    else:
        print(show(measured["traffic"]), show(measured["odd"]), sep="\n\n")
    return 0
