"""What packing saves: four replicas of Qwen3-14B on an H100, against the least busy of them.

Joules are the counters', idle included; time per token is a request's own mean after its first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tests.lab.gateways import FleetSpec, LabGateways
from tests.lab.lab import Lab, least_busy
from tests.lab.metering import Meter
from tests.lab.results import LabRun
from tests.lab.schedule import Arrival, poisson

ENTRY, REPLICAS = "Qwen3-14B@H100", 4
MINUTES = 20.0
TOKENS_IN = (20, 300)
LONGER_TOKENS_IN = (20, 1000)
_COUNTERS = Meter(period_seconds=1.0, batch_seconds=60.0, poll_seconds=0.0)


@cache
def packing_fleet() -> FleetSpec:
    """The replicas."""
    return FleetSpec({"qwen": (ENTRY, 0.7, REPLICAS)})


@cache
def schedule(
    rate: float, seconds: float = 60.0 * MINUTES, tokens_in: tuple[int, int] = TOKENS_IN
) -> tuple[Arrival, ...]:
    """Independent arrivals; answers log-normal with a mean of 300 tokens."""
    return tuple(poisson(rate=rate, seconds=seconds, seed=1, tokens_in=tokens_in))


@dataclass(frozen=True, slots=True)
class FleetCosts:
    """What a run took; seconds are per generated token."""

    joules: float
    median_token_seconds: float
    p95_token_seconds: float
    most_token_seconds: float
    most_running: int
    """The most at one backend at once, as far as a placement tells."""
    used: int
    """Backends that ever got a request."""

    def joules_against(self, other: "FleetCosts") -> float:
        """Joules as a share of another run's."""
        return self.joules / other.joules

    def p95_against(self, other: "FleetCosts") -> float:
        """p95 of the time per token as a share of another run's."""
        return self.p95_token_seconds / other.p95_token_seconds


def run_packed(
    arrivals: Sequence[Arrival], placed: LabGateways | None, since: float = 0.0
) -> FleetCosts:
    """Serve by gateways' placement, or the least busy; count what came after `since`."""
    lab = Lab(
        packing_fleet().backends, meter=_COUNTERS, place=placed or least_busy, onlooker=placed
    )
    return summarise_run(lab.run(arrivals), placed, since)


def summarise_run(run: LabRun, placed: LabGateways | None, since: float = 0.0) -> FleetCosts:
    """Return a run's costs."""
    spent = 0
    for books in run.counters.values():
        before = [shown for at, shown in books.shown if at <= since]
        spent += books.advanced_microjoules - (before[-1] if before else 0)
    requests = [one for one in run.requests if one.arrival.at_seconds >= since]
    each = sorted(
        (one.truth.seconds - one.truth.first_token_seconds) / (one.truth.tokens_out - 1)
        for one in requests
        if one.truth is not None and one.truth.tokens_out > 1
    )
    return FleetCosts(
        spent / 1e6,
        each[len(each) // 2],
        each[int(0.95 * len(each))],
        each[-1],
        max(placed.most_running.values()) if placed else 0,
        len({one.backend for one in requests}),
    )


@cache
def spread_costs(rate: float, tokens_in: tuple[int, int] = TOKENS_IN) -> FleetCosts:
    """The least busy backend for each."""
    return run_packed(schedule(rate, tokens_in=tokens_in), None)


@cache
def packed_costs(rate: float, tokens_in: tuple[int, int] = TOKENS_IN) -> FleetCosts:
    """One gateway with default weights and placement."""
    return run_packed(schedule(rate, tokens_in=tokens_in), LabGateways(packing_fleet()))
