"""Refit drills against the physical truth: `python -m tests.bench refits`.

Twenty windows of each drill of tests/lab/drills.py, on the virtual clock: the same figures on
every machine. `--traffic` runs those of one kind of traffic; `--coverage` counts how often 95%
intervals hold the truth where neighbouring scrapes are correlated at 0.9.
"""

import argparse

from gateway.scheduling.cost import CostQuantity
from tests.bench.report import say, table
from tests.lab.drills import DRILLS, DrillResult, measure_coverage, run_drill
from tests.lab.refits import TRAFFIC

_RUNS = 20
_DRAWS = 10


def main(arguments: list[str]) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench refits", description=__doc__)
    parser.add_argument("--traffic", choices=list(TRAFFIC), help="only the drills of this traffic")
    parser.add_argument("--coverage", action="store_true", help="the intervals instead")
    parser.add_argument("--runs", type=int, default=_RUNS, help="windows of each drill")
    given = parser.parse_args(arguments)
    seeds = range(1, given.runs + 1)
    if given.coverage:
        rows = []
        for quantity in CostQuantity:
            held, runs = measure_coverage(quantity, seeds, _DRAWS)
            rows.append((quantity.value, *(f"{count / runs:.1%}" for count in held.values())))
        print(table(("cost", "mean request", "b0", "b1", "b2", "b3", "b4"), rows))
        return 0
    found = []
    for drill in DRILLS:
        if given.traffic in {None, drill.traffic}:
            say(drill.name)
            found += [
                _describe(drill.name, quantity, result)
                for quantity, result in run_drill(drill, seeds).items()
            ]
    print(table(("drill", "cost", "adopted", "error before", "after, at worst"), found))
    return 0


def _describe(name: str, quantity: CostQuantity, result: DrillResult) -> tuple[str, ...]:
    before = f"{max(result.before):.1%}" if result.before else "-"
    after = f"{result.worst:.1%}" if result.after else "-"
    return (name, quantity.value, f"{result.adopted} of {result.runs}", before, after)
