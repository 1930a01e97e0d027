"""One gateway scraped by two Prometheus servers: two series that show the same counters.

Counted twice, errors come out too small by a factor of 1.4 and half the requests pass the gate.

Two instances are one gateway where their scrapes, put in order of time, never contradict each
other: every term stays or grows from each scrape to the next, whichever of the two it is of, except
at a restart, which both see. Two gateways with traffic of their own contradict each other at once.
Nothing is said of series that hardly moved, or that hardly overlap in time.
"""

from collections.abc import Mapping

import numpy as np

from calibration.arrays import Floats

_LEAST_TURNS = 4
_LEAST_MOVES = 3


def find_duplicates(shown: Mapping[str, tuple[Floats, Floats]]) -> list[str]:
    """Return the instances to leave out, each of which shows a gateway that another shows too.

    `shown` has the times and the rows of terms of each. Of two, the one with fewer scrapes is left
    out, and of as many the later in the alphabet.
    """
    fuller = sorted(shown, key=lambda where: (-len(shown[where][0]), where))
    kept: list[str] = []
    doubled = []
    for where in fuller:
        if any(_is_same(shown[one], shown[where]) for one in kept):
            doubled.append(where)
        else:
            kept.append(where)
    return sorted(doubled)


def _is_same(one: tuple[Floats, Floats], two: tuple[Floats, Floats]) -> bool:
    if min(len(one[0]), len(two[0])) < _LEAST_MOVES:
        return False
    times = np.concatenate([one[0], two[0]])
    order = np.argsort(times, kind="stable")
    source = np.repeat([0, 1], [len(one[0]), len(two[0])])[order]
    values = np.concatenate([one[1], two[1]])[order]
    turns = int(np.count_nonzero(np.diff(source)))
    moves = min(_count_moves(one[1]), _count_moves(two[1]))
    falls = int(
        (np.diff(_interpolate_monotone(values, one[1], two[1]), axis=0) < 0.0).any(axis=1).sum()
    )
    restarts = max(_count_restarts(one[1]), _count_restarts(two[1]))
    return turns >= _LEAST_TURNS and moves >= _LEAST_MOVES and falls <= restarts


def _interpolate_monotone(values: Floats, one: Floats, two: Floats) -> Floats:
    """Keep the terms that rise in both series wherever the first one does."""
    rising = np.ones(values.shape[1], dtype=bool)
    for shown in (one, two):
        steps = np.diff(shown, axis=0)
        whole = steps[:, 0] >= 0.0
        rising &= (steps[whole] >= 0.0).all(axis=0)
    return values[:, rising]


def _count_moves(shown: Floats) -> int:
    return int(np.count_nonzero(np.diff(shown[:, 0]) > 0.0))


def _count_restarts(shown: Floats) -> int:
    return int(np.count_nonzero(np.diff(shown[:, 0]) < 0.0))
