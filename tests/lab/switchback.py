"""A switchback on the virtual clock: engines and ledgers serve, the gateway's counters count.

Two replicas of one model on a GPU each. Blocks of the baseline go to the one, the treatment's to
the other, whose joules, idle ones included, are so much less that the whole fleet's would fall by
`saving` if the treatment had all the traffic: what that takes is read off such a run (twin runs).
Traffic swells, wanders and comes by chance; lengths scatter; requests are charged by the ledger,
late, and counted by the arm in which they arrived.

One run serves for several savings: a GPU whose every part costs `factor` times as much spends,
and its ledger divides, `factor` times as much (test_switchback holds it against such an engine).
"""

import math
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
from prometheus_client import CollectorRegistry

from calibration.recalibrate.prometheus import Series
from calibration.savings.arms import COUNTERS, INFO, read_blocks, read_switchback
from calibration.savings.savings import ArmComparison, compare, pair_up
from gateway.scheduling.switchback import TREATMENT, Switchback
from gateway.telemetry.experiment import ExperimentMetrics
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import (
    ClientOutcome,
    ReceivedRequest,
    RequestedName,
    RequestEnergy,
    ServedRequest,
)
from tests.lab.costs import H100, fitted_profile
from tests.lab.lab import Lab, Load, Onlooker, Placed
from tests.lab.metering import Meter
from tests.lab.results import LabRequest, LabRun
from tests.lab.scenarios import LENGTHS
from tests.lab.schedule import Arrival, poisson
from tests.lab.server import LabBackend

BLOCK_SECONDS, BLOCKS, WASHOUT_SECONDS = 60.0, 40, 10.0
SCRAPE_SECONDS = 20.0
RATE = 0.8
SAVINGS = (0.0, 0.05, 0.2)
START = 1_000_000 * BLOCK_SECONDS
_METER = Meter(period_seconds=0.25, batch_seconds=0.5, poll_seconds=2.0)
_SECONDS = BLOCKS * BLOCK_SECONDS
_ARMS = {"baseline": "a", TREATMENT: "b"}


def draw_traffic(seed: int, blocks: int = BLOCKS) -> list[Arrival]:
    """A day's swell within the run, and a load that wanders by the minute."""
    rng, wander, arrivals = Random(seed), 0.0, []
    phase = rng.uniform(0.0, 2 * math.pi)
    for minute in range(int(blocks * BLOCK_SECONDS // 60)):
        wander = 0.9 * wander + rng.gauss(0.0, 0.15)
        swell = 1.0 + 0.5 * math.sin(phase + 2 * math.pi * minute * 60 / _SECONDS)
        drawn = poisson(
            rate=RATE * swell * math.exp(wander), seconds=60.0, seed=1000 * seed + minute, **LENGTHS
        )
        arrivals += [replace(one, at_seconds=60.0 * minute + one.at_seconds) for one in drawn]
    return arrivals


@cache
def find_factor(saving: float) -> float:
    """What the treatment's GPU must spend, over what it does, for the fleet to save that much.

    With all requests the one GPU spends E, and the idle one I: (I + f E) / (E + f I) = 1 - saving.
    """
    joules = []
    for seed in (1001, 1002):
        lab = Lab(make_backends(), seed=seed, meter=_METER, place=lambda _, __: Placed("a"))
        run = lab.run(draw_traffic(seed), _SECONDS)
        joules.append([run.counters[name].advanced_microjoules for name in ("gpu-a", "gpu-b")])
    busy, idle = np.array(joules, dtype=float).sum(axis=0)
    return float(((1.0 - saving) * busy - idle) / (busy - (1.0 - saving) * idle))


def make_backends(factor: float = 1.0) -> list[LabBackend]:
    """The two replicas; the second one's joules are `factor` times the first's."""
    other = H100.scale_costs(joules=factor, seconds=1.0)
    other = replace(other, idle_watts=factor * H100.idle_watts)
    cost = fitted_profile(H100)
    return [
        LabBackend("a", H100, gpu="gpu-a", cost=cost),
        LabBackend("b", other, gpu="gpu-b", cost=cost.scaled(factor)),
    ]


class _Counters(Onlooker):
    """The gateway's counters of one experiment for each factor, scraped as time goes by."""

    look_seconds = SCRAPE_SECONDS

    def __init__(self, seed: int, factors: tuple[float, ...]) -> None:
        self.switchback = Switchback("lab", seed, BLOCK_SECONDS, WASHOUT_SECONDS)
        self._now = 0.0
        self._factors = factors
        self._registries = [CollectorRegistry() for _ in factors]
        self._counted = [
            ExperimentMetrics(registry, self.switchback, "a", lambda: START + self._now)
            for registry in self._registries
        ]
        self._samples: list[dict[tuple[str, tuple[tuple[str, str], ...]], list]] = [
            {} for _ in factors
        ]

    def place(self, arrival: Arrival, _: dict[str, Load]) -> Placed:
        """Send it to the replica of the arm in force."""
        return Placed(_ARMS[self.switchback.arm_in_force(START + arrival.at_seconds)])

    def look(self, now: float, _: dict[str, Load]) -> None:
        """Be scraped."""
        for registry, samples in zip(self._registries, self._samples, strict=True):
            for family in registry.collect():
                for one in family.samples:
                    if not one.name.endswith("_created"):
                        key = (one.name, tuple(sorted(one.labels.items())))
                        samples.setdefault(key, []).append((START + now, repr(one.value)))

    def settled(self, now: float, request: LabRequest) -> None:
        """A request is over and its joules are known."""
        self._now = now
        assert request.truth is not None
        at = START + request.arrival.at_seconds
        for factor, counted in zip(self._factors, self._counted, strict=True):
            target = RequestedName("auto", "default", self.switchback.arm_at(at))
            record = RequestRecord(ReceivedRequest(str(request.number), at, "chat"), target, None)
            record.outcome, record.seconds = ClientOutcome(200), request.truth.seconds
            record.served = ServedRequest(request.arrival.tokens_in, request.tokens_out)
            scale = factor if request.backend == "b" else 1.0
            joules = scale * (request.charged_microjoules or 0) / 1e6
            record.settled = RequestEnergy(joules, request.method)
            counted.count_request(record)
            counted.count_energy(record)

    def spent(self, now: float, gpu: str, kind: str, microjoules: int) -> None:
        """Hear of joules that no request answers for."""
        self._now = now
        for factor, counted in zip(self._factors, self._counted, strict=True):
            scale = factor if gpu == "gpu-b" else 1.0
            counted.count_unattributed(kind, scale * microjoules / 1e6)

    def analyse(self, place: int, blocks: int) -> dict[str, ArmComparison]:
        """What `joulegate savings` makes of the samples of one factor."""
        series = [
            Series({"__name__": name, **dict(labels)}, values)
            for (name, labels), values in self._samples[place].items()
        ]
        return analyse_series(series, self.switchback, blocks)


def analyse_series(
    series: list[Series], switchback: Switchback, blocks: int
) -> dict[str, ArmComparison]:
    """What `joulegate savings` makes of an experiment's series, from START on."""

    def select(name: str) -> list[Series]:
        return [one for one in series if one.metric["__name__"] == name]

    (told, _), *_ = read_switchback(select(INFO), None).values()
    assert told == switchback
    counters = {counter: select(name) for counter, name in COUNTERS.items()}
    end = START + blocks * BLOCK_SECONDS
    found = read_blocks(switchback, counters, START, end)
    assert len(found) == blocks
    return {one.name: one for one in compare(pair_up(found))}


def run_arrivals(
    arrivals: list[Arrival], seed: int, factor: float, blocks: int
) -> dict[str, ArmComparison]:
    """Run other traffic, so many blocks long, on engines of which the second costs less."""
    _, (found,) = _run(seed, (1.0,), make_backends(factor), arrivals, blocks)
    return found


def run_switchback(seed: int, factors: tuple[float, ...]) -> list[dict[str, ArmComparison]]:
    """Run it once; what is said of it, for each factor of the treatment's joules."""
    return _run(seed, factors, make_backends(), draw_traffic(seed))[1]


def run_scaled(seed: int, factor: float) -> tuple[LabRun, dict[str, ArmComparison]]:
    """Run it on an engine that does cost `factor` times as much."""
    run, (found,) = _run(seed, (1.0,), make_backends(factor), draw_traffic(seed))
    return run, found


def _run(
    seed: int,
    factors: tuple[float, ...],
    backends: list[LabBackend],
    arrivals: list[Arrival],
    blocks: int = BLOCKS,
) -> tuple[LabRun, list[dict[str, ArmComparison]]]:
    counters = _Counters(seed, factors)
    lab = Lab(backends, seed=seed, meter=_METER, place=counters.place, onlooker=counters)
    seconds = blocks * BLOCK_SECONDS
    run = lab.run(arrivals, seconds + SCRAPE_SECONDS)
    assert all(books.conserved for books in run.counters.values())
    counters.look(seconds + 2 * SCRAPE_SECONDS, {})
    return run, [counters.analyse(place, blocks) for place in range(len(factors))]
