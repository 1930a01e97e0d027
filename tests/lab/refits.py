"""Refits of what the ledger charged, held against the physical truth: no regression made the rows.

Requests run in the step engine, the ledger divides its joules, a gateway's own sums take the rows,
and `joulegate recalibrate`'s own reader, refit and gates say what is adopted. What comes out is
asked for the true joules and seconds of requests that nobody has fitted.

A true live profile is the form fitted to what the requests of another window truly cost. What is
wrong is put into the rows (a latency five times too long), or into the traffic (`TRAFFIC`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from statistics import median

import msgspec
import numpy as np

from calibration.recalibrate.prometheus import Series
from calibration.recalibrate.refit_models import (
    RefitOutcome,
    RefitPart,
    RefitSettings,
    recalibrate_models,
)
from calibration.recalibrate.sums import SUMS_METRIC, SumBlock, read_blocks
from calibration.recalibrate.window_sums import WindowSums
from gateway.profile import AccuracyProfile, CostProfile, CostRegression, ModelProfile
from gateway.scheduling.cost import CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import TERMS, WeighedPrediction
from gateway.telemetry.ols_sums import OlsSums
from gateway.telemetry.sums_row import PARTS, UNITS, SumsRow
from tests.lab.costs import H100, fitted_profile
from tests.lab.lab import Lab
from tests.lab.results import LabRun
from tests.lab.scenarios import LENGTHS
from tests.lab.schedule import Arrival, poisson
from tests.lab.server import LabBackend
from tests.scaled_costs import scale_cost

SECONDS, JOULES = CostQuantity.SECONDS, CostQuantity.JOULES
FORM = RegressionForm.LOAD_CONTEXT
TRUTH = replace(H100, context=131_072)
BLOCK_SECONDS, BLOCKS = 300.0, 12
RATES = (0.1, 1.6)
SCRAPE_SECONDS = 15.0
TRUE_SEED, FRESH_SEED = 1000, 2000
_NAME = ("m", "m")
_MEASURED = {"exclusive", "apportioned"}


@dataclass(frozen=True, slots=True)
class ServedRow:
    """What a gateway notes of a request, and what it truly cost."""

    ended_seconds: float
    tokens_in: int
    tokens_out: int
    cached_tokens: int
    running: float
    harmonic_running: float
    seconds: float
    joules: float | None
    """As charged; None where they were not measured for it alone."""
    true_seconds: float
    true_joules: float

    def read_load(self, quantity: CostQuantity) -> float:
        """Return the other requests, as the quantity's column of load has them."""
        return self.running if quantity is SECONDS else self.harmonic_running

    def read_truth(self, quantity: CostQuantity) -> float:
        """Return the true cost."""
        return self.true_seconds if quantity is SECONDS else self.true_joules

    def scale_costs(self, *, seconds: float = 1.0, joules: float = 1.0) -> "ServedRow":
        """Return the same with other costs noted, so many times what they were."""
        scaled = None if self.joules is None else joules * self.joules
        return replace(self, seconds=seconds * self.seconds, joules=scaled)

    def predict(self, quantity: CostQuantity, cost: CostRegression) -> float:
        """Return what a cost says of it."""
        function = cost.to_cost_function(quantity)
        load = self.read_load(quantity)
        return function.evaluate_form(self.tokens_in, self.tokens_out, load, self.cached_tokens)


def draw_clean(seed: int) -> list[Arrival]:
    """About 3,000 streams within an hour, the rate another every five minutes."""
    rng, arrivals = Random(seed), []
    for block in range(BLOCKS):
        begin = block * BLOCK_SECONDS
        drawn = poisson(
            rate=rng.uniform(*RATES), seconds=BLOCK_SECONDS, seed=1000 * seed + block, **LENGTHS
        )
        arrivals += [replace(one, at_seconds=begin + one.at_seconds) for one in drawn]
    return arrivals


def draw_novels(seed: int) -> list[Arrival]:
    """One prompt in a hundred has 100,000 tokens."""
    rng = Random(seed)
    return [
        replace(one, tokens_in=100_000) if rng.random() < 0.01 else one for one in draw_clean(seed)
    ]


def draw_cached(seed: int) -> list[Arrival]:
    """Seven prompts in ten were read before, all but a tenth of each."""
    rng = Random(seed)
    return [
        replace(one, cached_tokens=int(0.9 * one.tokens_in)) if rng.random() < 0.7 else one
        for one in draw_clean(seed)
    ]


def draw_pings(seed: int) -> list[Arrival]:
    """Beside each of some 600 real ones twenty of `max_tokens: 1`, at any time."""
    rng = Random(seed)
    real = [one for one in draw_clean(seed) if rng.random() < 0.2]
    span = BLOCKS * BLOCK_SECONDS
    pings = [
        replace(one, at_seconds=rng.uniform(0.0, span), tokens_out=1, limit=1)
        for one in real
        for _ in range(20)
    ]
    return sorted(real + pings, key=lambda one: one.at_seconds)


TRAFFIC: Mapping[str, Callable[[int], list[Arrival]]] = {
    "clean": draw_clean, "novels": draw_novels, "cached": draw_cached, "pings": draw_pings,
}  # fmt: skip


@cache
def serve(traffic: str, seed: int) -> tuple[ServedRow, ...]:
    """Run the traffic; return the rows of what ended whole."""
    backend = LabBackend("one", TRUTH, cost=fitted_profile(H100))
    return tuple(_read_rows(Lab([backend], seed=seed).run(TRAFFIC[traffic](seed))))


def _read_rows(run: LabRun) -> Iterable[ServedRow]:
    for one in run.measured():
        assert one.truth is not None
        assert one.charged_microjoules is not None
        charged = one.charged_microjoules / 1e6 if one.method in _MEASURED else None
        yield ServedRow(
            one.ended_seconds, one.arrival.tokens_in, one.tokens_out, one.truth.cached_tokens,
            one.others, one.harmonic_others, one.truth.seconds, charged,
            one.truth.seconds, one.truth.total_joules,
        )  # fmt: skip


@cache
def fit_truth(traffic: str, quantity: CostQuantity) -> CostRegression:
    """The form fitted to what the requests of another window truly cost."""
    return fit_rows(serve(traffic, TRUE_SEED), quantity)


def fit_rows(rows: Sequence[ServedRow], quantity: CostQuantity) -> CostRegression:
    """The form fitted, relatively, to true costs; errors clustered by the blocks of the traffic."""
    i = np.array([one.tokens_in for one in rows], dtype=float)
    o = np.array([one.tokens_out for one in rows], dtype=float)
    u = i - [one.cached_tokens for one in rows]
    r = np.array([one.read_load(quantity) for one in rows])
    z = o * r if quantity is SECONDS else o / (1.0 + r)
    x = np.column_stack([np.ones(len(i)), u, o, o * (i + o / 2), z])
    y = np.array([one.read_truth(quantity) for one in rows])
    weight, found = 1.0 / y, np.zeros(5)
    for _ in range(4):
        found = np.linalg.lstsq(x * weight[:, None], y * weight, rcond=None)[0]
        weight = 1.0 / np.maximum(x @ found, 1e-3)
    x, y = x * weight[:, None], y * weight
    block = np.array([one.ended_seconds // BLOCK_SECONDS for one in rows])
    scores = [x[block == each].T @ (y - x @ found)[block == each] for each in np.unique(block)]
    moved = np.array(scores) @ np.linalg.inv(x.T @ x)
    covariance = len(moved) / (len(moved) - 1.0) * moved.T @ moved
    return CostRegression(
        form=FORM, coefficients=found.tolist(), covariance=covariance.tolist(), n=len(rows)
    )


def make_profile(seconds: CostRegression, joules: CostRegression) -> ModelProfile:
    """A live profile of these costs."""
    return ModelProfile(accuracy=AccuracyProfile(0.5), seconds=seconds, joules=joules)


def make_true_profile(traffic: str = "clean", factor: float = 1.0) -> ModelProfile:
    """The true live profile of that traffic, or one that is off by a factor."""
    costs = []
    for quantity in (SECONDS, JOULES):
        true = fit_truth(traffic, quantity)
        covariance = (factor**2 * np.array(true.covariance)).tolist()
        costs.append(msgspec.structs.replace(scale_cost(true, factor), covariance=covariance))
    return make_profile(*costs)


def read_window(rows: Sequence[ServedRow], live: ModelProfile) -> WindowSums:
    """What a Prometheus would hold of the gateway that served these rows, read by the command."""
    sums, samples = OlsSums([_NAME]), dict[tuple[int, int], list[tuple[float, str]]]()

    def scrape(at: float) -> None:
        parts = sums.snapshot_sums()[_NAME]
        for part, (units, values) in enumerate(zip(UNITS, parts, strict=True)):
            for term, (unit, value) in enumerate(zip(units, values, strict=True)):
                samples.setdefault((part, term), []).append((at, repr(value / unit)))

    costs = [live.seconds.to_cost_function(SECONDS), live.joules.to_cost_function(JOULES)]
    due = 0.0
    scrape(due)
    for one in sorted(rows, key=lambda row: row.ended_seconds):
        while one.ended_seconds > due + SCRAPE_SECONDS:
            due += SCRAPE_SECONDS
            scrape(due)
        said = (
            WeighedPrediction.of(cost, one.tokens_in, one.tokens_out, load, one.cached_tokens)
            for cost, load in zip(costs, (one.running, one.harmonic_running), strict=True)
        )
        micro = None if one.joules is None else round(one.joules * 1e6)
        sums.add_row(
            *_NAME,
            SumsRow(
                one.tokens_in, one.tokens_out, one.cached_tokens, one.running,
                round(one.seconds * 1e6), micro, None, False, *said, one.harmonic_running,
            ),
        )  # fmt: skip
    scrape(due + SCRAPE_SECONDS)
    blocks: dict[tuple[str, str], SumBlock] = {}
    for part, (basis, quantity) in enumerate(PARTS):
        series = [
            Series(
                {"__name__": SUMS_METRIC, "model": "m", "deployment": "m", "term": name},
                samples[part, term],
            )
            for term, name in enumerate(TERMS[basis])
        ]
        blocks[basis, quantity] = read_blocks(basis, series)[_NAME]
    return WindowSums({_NAME: blocks}, ())


def recalibrate(
    rows: Sequence[ServedRow], live: ModelProfile, settings: RefitSettings | None = None
) -> RefitOutcome:
    """Refit a window of rows from a live profile, and ask the gates."""
    window = read_window(rows, live)
    profile = CostProfile(models={"m": live}, version="live")
    (outcome,) = recalibrate_models(window, profile, {"m": [_NAME]}, settings or RefitSettings())
    return outcome


def select_part(outcome: RefitOutcome, quantity: CostQuantity) -> RefitPart:
    """What was found of that cost."""
    return next(one for one in outcome.parts if one.name == quantity.value)


def is_adopted(outcome: RefitOutcome, quantity: CostQuantity) -> bool:
    """Whether that cost is another now."""
    return outcome.entry is not None and select_part(outcome, quantity).gates_passed


def select_cost(model: ModelProfile, quantity: CostQuantity) -> CostRegression:
    """The one of its two costs."""
    return model.seconds if quantity is SECONDS else model.joules


def median_error(
    model: ModelProfile, quantity: CostQuantity, traffic: str = "clean", seed: int = FRESH_SEED
) -> float:
    """The median relative error of the true costs of fresh requests."""
    cost = select_cost(model, quantity)
    return median(
        abs(one.predict(quantity, cost) / one.read_truth(quantity) - 1.0)
        for one in serve(traffic, seed)
    )
