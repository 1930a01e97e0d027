"""`python -m tests.bench guard`: fails where the data path has become much dearer.

CPU per request and per streamed chunk, the gateway's over the bare relay's, in turn in one run: a
ratio of two things that share machine, client and upstream, so that a slow or busy machine moves
both. On a machine whose core others had for 77 to 93% the ratios were 4.7 to 5.4 and 1.1 to 1.9
(the gateway loses more to cold caches than the relay does), and since a whole answer is one write
4.96 and 1.28 on one as busy; quiet, with keys, admission and affinity since, 5.3 to 6.1 and 1.2:
the bare relay gains most from quiet. The limits stand a seventh and a quarter above the highest:
what they catch is a data path that has become dearer by a fifth, or a chunk by twice.
"""

import argparse
import statistics
from typing import Final

from tests.bench import machine
from tests.bench.peers import GATEWAY, RELAY, PeerBench
from tests.bench.report import number

_STREAMS: Final = 100
_UNARY: Final = "unary: CPU, us/request"
_CHUNK: Final = f"{_STREAMS} streams: CPU, us/chunk"
LIMITS: Final = {_UNARY: 7.0, _CHUNK: 2.4}
"""The most that the gateway may take, in parts of what the relay does."""


def find_ratios(seen: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Return the median over the rounds of the gateway's CPU over the relay's."""
    return {
        figure: statistics.median(
            ours / theirs
            for ours, theirs in zip(seen[GATEWAY][figure], seen[RELAY.name][figure], strict=True)
        )
        for figure in LIMITS
    }


def find_dearer(ratios: dict[str, float]) -> list[str]:
    """Return the figures that are over their limits; one that is no number is over."""
    return [figure for figure, limit in LIMITS.items() if not ratios[figure] <= limit]


def main(arguments: list[str]) -> int:
    """Measure, print the ratios, return 1 where one is over its limit."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench guard", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    given = parser.parse_args(arguments)
    machine.allow_many_files()
    bench = PeerBench(given.rounds, given.seconds, (_STREAMS,))
    bench.run((RELAY,))
    ratios = find_ratios(bench.seen)
    for figure, ratio in ratios.items():
        values = " ".join(
            f"{name} {number(statistics.median(bench.seen[name][figure]))}"
            for name in (GATEWAY, RELAY.name)
        )
        print(f"{figure}: {ratio:.2f} of the bare relay's (limit {LIMITS[figure]:g}); {values}")
    return int(bool(find_dearer(ratios)))
