"""`python -m tests.bench workers`: requests a second with two workers, beside one, in one run.

One worker has one core and the load the other; two workers share both cores with the load, which on
a machine of two cores takes some of what they could do. On one of four or more each worker has a
core of its own. Exits 1 where two serve less than `--least` times what one does.
"""

import argparse
import os
import statistics
from typing import Final

from tests.bench import load, machine, serving
from tests.bench.report import number, say
from tests.bench.shown import BUSY

_WORKERS: Final = 2
_ROOMY_CORES: Final = 4


def _share_cores() -> tuple[set[int], set[int]]:
    """Return the cores of one worker and of two; the load has the first core."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) >= _ROOMY_CORES:
        return {mine[-1]}, set(mine[-_WORKERS:])
    return {mine[-1]}, set(mine)


def main(arguments: list[str]) -> int:
    """Measure both in turn, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--least", type=float, default=0.0, help="the ratio that is asked for")
    given = parser.parse_args(arguments)
    machine.allow_many_files()
    cores = machine.cores()
    one, two = _share_cores()
    os.sched_setaffinity(0, {cores.load})
    rates: dict[int, list[float]] = {1: [], _WORKERS: []}
    taken: list[float] = []
    with (
        serving.upstream(cores.upstream, 0.02) as ports,
        serving.gateway(one, ports) as single,
        serving.gateway(two, ports, workers=_WORKERS) as several,
    ):
        for turn in range(given.rounds):
            for count, up in ((1, single), (_WORKERS, several)):
                say(f"round {turn + 1}/{given.rounds}: {count} worker(s)")
                meter = serving.Meter(up.pid, cores.gateway)
                sample = load.unary(up.port, 2 * BUSY, given.seconds, 0.5, meter)
                rates[count].append(sample.whole / sample.seconds)
                if count == 1:
                    taken.append(meter.others_share)
    ratios = [several / one for one, several in zip(*rates.values(), strict=True)]
    for count, seen in rates.items():
        spread = f"{number(min(seen))} to {number(max(seen))}"
        print(f"{count} worker(s): {number(statistics.median(seen))} requests/s ({spread})")
    ratio = statistics.median(ratios)
    others = statistics.median(taken)
    print(f"ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"others had {others:.0%} of one worker's core: where that is much, it means little")
    return int(not ratio >= given.least)
