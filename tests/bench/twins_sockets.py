"""Twin runs over real sockets, beside the same on the virtual clock."""

import asyncio
import os
from dataclasses import replace
from random import Random
from typing import NamedTuple

from tests.bench import machine
from tests.bench.energy_sockets import make_kind, serve_kinds
from tests.lab import H100, Lab, LabBackend, poisson, twins
from tests.lab.scenarios import LENGTHS

_RATE = 1.0
_SHARE = 0.4
_TAG = "class"


class TwinJoules(NamedTuple):
    """What the counters had less of without a class of requests, and what it was charged."""

    saved: float
    charged: float


def compare_twins(seconds: float) -> tuple[TwinJoules, TwinJoules]:
    """Serve a schedule with and without two fifths of its requests: virtually, and over sockets.

    Over sockets both run side by side, each on a simulator of its own.
    """
    cores = machine.cores()
    os.sched_setaffinity(0, {cores.load})
    rng = Random(2)
    arrivals = [
        replace(one, tag=_TAG if rng.random() < _SHARE else "")
        for one in poisson(rate=_RATE, seconds=seconds, seed=1, **LENGTHS)
    ]
    whole = make_kind("whole", [LabBackend("whole", H100)], arrivals)
    rest = make_kind(
        "rest", [LabBackend("rest", H100)], [one for one in arrivals if one.tag != _TAG]
    )
    backend = replace(whole.backends[0])
    both = twins(lambda: Lab([backend]), whole.arrivals, lambda one: one.tag == _TAG)
    runs, spent = asyncio.run(serve_kinds(cores.gateway, (whole, rest)))
    charged = sum(
        one.charged_microjoules or 0 for one in runs["whole"].requests if one.arrival.tag == _TAG
    )
    return (
        TwinJoules(both.saved_joules, both.charged_joules),
        TwinJoules((spent["whole"] - spent["rest"]) / 1e6, charged / 1e6),
    )
