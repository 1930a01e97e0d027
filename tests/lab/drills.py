"""Refit drills: what is done to a window, what is asked of the refit, what came of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np

from calibration.recalibrate.refit_models import RefitSettings
from gateway.scheduling.cost import CostQuantity
from tests.lab.refits import (
    FORM,
    SCRAPE_SECONDS,
    ServedRow,
    fit_rows,
    is_adopted,
    make_true_profile,
    median_error,
    recalibrate,
    select_cost,
    select_part,
    serve,
)

Spoil = Callable[[Random, Sequence[ServedRow]], list[ServedRow]]


@dataclass(frozen=True, slots=True)
class Drill:
    """One of the drills; `factor` is what the live profile is off by."""

    name: str
    traffic: str = "clean"
    spoil: Spoil = lambda _, rows: list(rows)
    factor: float = 1.0
    rounds: int = 1
    quantities: tuple[CostQuantity, ...] = tuple(CostQuantity)


@dataclass(slots=True)
class DrillResult:
    """What came of it, a run each: whether adopted, and the errors on fresh requests."""

    adopted: int = 0
    runs: int = 0
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    """Of those runs whose cost is another now."""

    @property
    def worst(self) -> float:
        """The largest error afterwards, 0 where nothing was adopted."""
        return max(self.after, default=0.0)

    @property
    def worse_by(self) -> float:
        """By how much the worst of them is worse than what it replaced."""
        return max((b - a for a, b in zip(self.before, self.after, strict=True)), default=0.0)


def stretch(share: float, factor: float) -> Spoil:
    """Some latencies and joules so many times too high."""

    def spoil(rng: Random, rows: Sequence[ServedRow]) -> list[ServedRow]:
        return [
            one.scale_costs(seconds=factor, joules=factor) if rng.random() < share else one
            for one in rows
        ]

    return spoil


def misread(rng: Random, rows: Sequence[ServedRow]) -> list[ServedRow]:
    """What ran at one moment for the mean over the request: Poisson about it."""
    made = np.random.default_rng(rng.randrange(1 << 30))
    return [
        replace(
            one,
            running=float(made.poisson(one.running)),
            harmonic_running=float(made.poisson(one.harmonic_running)),
        )
        for one in rows
    ]


def unmeter(share: float) -> Spoil:
    """The dearest requests have no joules."""

    def spoil(_: Random, rows: Sequence[ServedRow]) -> list[ServedRow]:
        costs = sorted(one.joules or 0.0 for one in rows)
        most = costs[int((1.0 - share) * len(costs))]
        return [replace(one, joules=None) if (one.joules or 0.0) >= most else one for one in rows]

    return spoil


_JOULES = (CostQuantity.JOULES,)
DRILLS = (
    Drill("clean"),
    Drill("5% of the costs x5", spoil=stretch(0.05, 5.0)),
    Drill("0.3% of the costs x100", spoil=stretch(0.003, 100.0)),
    Drill("1% of prompts of 100k tokens", "novels"),
    Drill("20 of max_tokens 1 beside each", "pings"),
    Drill("load misread", spoil=misread),
    *(
        Drill(f"dearest {share:.0%} without joules", spoil=unmeter(share), quantities=_JOULES)
        for share in (0.02, 0.05, 0.1, 0.2)
    ),
    Drill("70% of prompts cached", "cached"),
    Drill("30% too low", factor=0.7),
    Drill("30% too high", factor=1.3),
    Drill("4 times too low, three rounds", factor=0.25, rounds=3),
    Drill("4 times too high, three rounds", factor=4.0, rounds=3),
)


def run_drill(drill: Drill, seeds: Iterable[int]) -> dict[CostQuantity, DrillResult]:
    """Refit a window (or some in a row) of each seed."""
    found = {quantity: DrillResult() for quantity in drill.quantities}
    for seed in seeds:
        live = first = make_true_profile(drill.traffic, drill.factor)
        for turn in range(drill.rounds):
            rows = serve(drill.traffic, seed + turn)
            outcome = recalibrate(drill.spoil(Random(seed), rows), live)
            live = outcome.entry or live
        for quantity, result in found.items():
            result.runs += 1
            adopted = select_cost(live, quantity) is not select_cost(first, quantity)
            if drill.rounds == 1:
                assert adopted == is_adopted(outcome, quantity)
            if adopted:
                result.adopted += 1
                result.before.append(median_error(first, quantity, drill.traffic))
                result.after.append(median_error(live, quantity, drill.traffic))
    return found


def measure_coverage(
    quantity: CostQuantity, seeds: Sequence[int], draws: int
) -> tuple[dict[str, int], int]:
    """How often intervals hold the truth where scrapes share a state that follows the last at 0.9.

    The state multiplies what each request cost. The truth of a coefficient is that of the form
    fitted to what the requests of all those windows truly cost; of the mean request, its mean.
    """
    pooled = [row for seed in seeds for row in serve("clean", seed)]
    truth = fit_rows(pooled, quantity).coefficients
    held: dict[str, int] = {"mean": 0, **{f"b{at}": 0 for at in range(5)}}
    runs = 0
    for seed in seeds:
        rows = serve("clean", seed)
        for draw in range(draws):
            rng = np.random.default_rng([seed, draw])
            spoilt = _drift_with_state(rng, rows, quantity)
            live = make_true_profile("clean", 1.2)
            settings = RefitSettings(form=FORM)
            runs += 1
            refit = select_part(recalibrate(spoilt, live, settings), quantity).found
            mean = float(np.mean([one.read_truth(quantity) for one in rows]))
            value, half = refit.predict_cost(refit.mean)
            held["mean"] += abs(value - mean) <= half
            for place, at in enumerate(refit.used):
                low, high = refit.solved.low[place], refit.solved.high[place]
                held[f"b{at}"] += bool(low <= truth[at] <= high)
    return held, runs


def _drift_with_state(
    rng: np.random.Generator, rows: Sequence[ServedRow], quantity: CostQuantity
) -> list[ServedRow]:
    count = int(max(one.ended_seconds for one in rows) // SCRAPE_SECONDS) + 1
    state, steps = np.zeros(count), rng.normal(0.0, 0.1 * (1 - 0.9**2) ** 0.5, count)
    for at in range(1, count):
        state[at] = 0.9 * state[at - 1] + steps[at]
    factors = (1.0 + float(state[int(one.ended_seconds // SCRAPE_SECONDS)]) for one in rows)
    return [
        one.scale_costs(**{quantity.value: factor})
        for one, factor in zip(rows, factors, strict=True)
    ]
