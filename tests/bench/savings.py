"""What a switchback tells: `python -m tests.bench savings`.

A hundred runs of forty blocks in the step engine (tests/lab/switchback.py) at true savings of 0, 5
and 20%: how often the interval holds the truth, and how often a saving is called one. The same
figures on every machine.
"""

import argparse

from tests.bench.report import say, table
from tests.lab.switchback import SAVINGS, find_factor, run_switchback

_FIGURES = ("joules_per_1000_tokens", "joules_per_answer")


def count_verdicts(runs: range) -> dict[tuple[float, str], tuple[int, int]]:
    """By true saving and figure: runs whose interval held the truth, and that called it a saving.

    The command calls a saving what fell by both figures; here each is counted by itself.
    """
    factors = tuple(find_factor(saving) for saving in SAVINGS)
    found = {(saving, name): (0, 0) for saving in SAVINGS for name in _FIGURES}
    for number, seed in enumerate(runs):
        if number % 10 == 0:
            say(f"run {number}")
        for saving, figures in zip(SAVINGS, run_switchback(seed, factors), strict=True):
            for name in _FIGURES:
                one = figures[name]
                assert one.low is not None
                assert one.high is not None
                held, called = found[saving, name]
                held += one.low <= -saving <= one.high
                found[saving, name] = held, called + (one.verdict == "less")
    return found


def main(arguments: list[str]) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench savings", description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--first", type=int, default=1, help="the first run's seed")
    given = parser.parse_args(arguments)
    runs = range(given.first, given.first + given.runs)
    rows = [
        (f"{saving:.0%}", name, f"{held} of {given.runs}", f"{called} of {given.runs}")
        for (saving, name), (held, called) in count_verdicts(runs).items()
    ]
    print(table(("true saving", "figure", "interval held it", "called a saving"), rows))
    return 0
