"""Totals of a plan of choices, with 95% intervals of two kinds.

- `requests`: other requests of the same kind might have come. A bootstrap over requests, the same
  resamples for every plan, so that differences are paired; Wilson's where a share is 0 or 1.
- `requests_and_profile`: besides, the profile's coefficients are estimates. Each replicate also
  draws them from their covariance, the same draw for every plan. The choices stay as they are,
  and so does accuracy, whose uncertainty a profile does not hold.

The scatter of single requests about a fit is in neither: over many requests it averages out.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.arrays import Floats
from calibration.replay.replay import Ints, RequestPrices
from calibration.replay.replay_fleet import ReplayFleet
from calibration.stats.intervals import (
    ConfidenceInterval,
    compute_percentile_interval,
    compute_wilson_interval,
)
from gateway.scheduling.cost import CostQuantity

REPLICATES = 1000
_CELLS = 8_000_000
_SECONDS, _JOULES, _ACCURACY = -3, -2, -1


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A value with its intervals; `both` None where the profile has no covariance."""

    value: float
    requests: ConfidenceInterval
    both: ConfidenceInterval | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "value": self.value,
            "interval_95_requests": list(self.requests),
            "interval_95_requests_and_profile": list(self.both) if self.both else None,
        }


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """What one plan comes to; costs are means per request."""

    name: str
    shares: dict[str, IntervalEstimate]
    joules: IntervalEstimate
    seconds: IntervalEstimate
    accuracy: IntervalEstimate
    fixed: bool = False
    """Whether it is one model by definition."""


@dataclass(frozen=True, slots=True)
class PlanSaving:
    """One plan against another: joules and seconds saved a request, points of accuracy gained.

    All at unchanged load: each request keeps the load that it met. A plan that sends more traffic
    to a model changes what each request there costs, which no interval here has in it.
    """

    plan: str
    against: str
    joules: IntervalEstimate
    seconds: IntervalEstimate
    accuracy: IntervalEstimate
    changed: IntervalEstimate
    """Share of requests that another model would answer."""


class PlanComparison:
    """Plans under one profile, resampled together."""

    def __init__(
        self,
        world: ReplayFleet,
        prices: RequestPrices,
        plans: dict[str, Ints],
        *,
        fixed: Collection[str] = (),
        replicates: int = REPLICATES,
        seed: int = 0,
        on_replicates: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`fixed` names the plans that are one model by definition."""
        self._models = world.models
        self._fixed = frozenset(fixed)
        self._n = len(next(iter(plans.values())))
        self._names = list(plans)
        owner = np.array([self._models.index(place.model) for place in world.deployments])
        self._owners = [owner[chosen] for chosen in plans.values()]
        blocks = [
            _build_block(prices, chosen, owner, len(self._models)) for chosen in plans.values()
        ]
        self._width = len(self._models) + 3
        changes = [a != b for a in self._owners for b in self._owners]
        stacked = np.hstack([*blocks, np.array(changes, dtype=float).T])
        self._means = stacked.mean(axis=0)
        rng = np.random.default_rng(seed)
        self._boot = _bootstrap_means(stacked, replicates, rng, on_replicates)
        draws = _draw_coefficients(world, replicates, rng)
        self.uncertain = sorted({place.model for place, _ in draws})
        self._shifts = {
            quantity: [
                _compute_shift(world, prices, chosen, quantity, draws, replicates)
                for chosen in plans.values()
            ]
            for quantity in CostQuantity
        }

    def compute_outcome(self, name: str) -> PlanOutcome:
        """Return one plan's figures."""
        shares = {
            model: self._estimate_share(self._find_column(name, at), fixed=name in self._fixed)
            for at, model in enumerate(self._models)
        }
        return PlanOutcome(
            name,
            shares,
            joules=self._estimate_cost(name, CostQuantity.JOULES),
            seconds=self._estimate_cost(name, CostQuantity.SECONDS),
            accuracy=self._estimate_mean(self._find_column(name, self._width + _ACCURACY)),
            fixed=name in self._fixed,
        )

    def compute_saving(self, plan: str, against: str) -> PlanSaving:
        """Return one plan against another."""
        one = self._find_column(plan, self._width + _ACCURACY)
        other = self._find_column(against, self._width + _ACCURACY)
        size = len(self._names)
        changed = size * self._width + self._names.index(plan) * size + self._names.index(against)
        return PlanSaving(
            plan,
            against,
            joules=self._estimate_saved_share(plan, against, CostQuantity.JOULES),
            seconds=self._estimate_saved_share(plan, against, CostQuantity.SECONDS),
            accuracy=IntervalEstimate(
                float(self._means[one] - self._means[other]),
                compute_percentile_interval(self._boot[:, one] - self._boot[:, other]),
            ),
            changed=self._estimate_share(changed, fixed=plan == against),
        )

    def _find_column(self, name: str, at: int) -> int:
        return self._names.index(name) * self._width + at

    def _estimate_mean(self, column: int) -> IntervalEstimate:
        return IntervalEstimate(
            float(self._means[column]), compute_percentile_interval(self._boot[:, column])
        )

    def _estimate_share(self, column: int, *, fixed: bool) -> IntervalEstimate:
        """Return a share of requests; resampling all or none of them would show no doubt."""
        value = float(self._means[column])
        if value in (0.0, 1.0) and not fixed:
            return IntervalEstimate(value, compute_wilson_interval(value * self._n, self._n))
        return self._estimate_mean(column)

    def _find_cost_column(self, name: str, quantity: CostQuantity) -> tuple[int, Floats]:
        at = _SECONDS if quantity is CostQuantity.SECONDS else _JOULES
        return self._find_column(name, self._width + at), self._shifts[quantity][
            self._names.index(name)
        ]

    def _estimate_cost(self, name: str, quantity: CostQuantity) -> IntervalEstimate:
        column, shift = self._find_cost_column(name, quantity)
        boot = self._boot[:, column]
        both = compute_percentile_interval(boot + shift) if self.uncertain else None
        return IntervalEstimate(float(self._means[column]), compute_percentile_interval(boot), both)

    def _estimate_saved_share(
        self, plan: str, against: str, quantity: CostQuantity
    ) -> IntervalEstimate:
        one, one_shift = self._find_cost_column(plan, quantity)
        other, other_shift = self._find_cost_column(against, quantity)
        a, b = self._boot[:, one], self._boot[:, other]
        both = None
        if self.uncertain:
            both = compute_percentile_interval(b + other_shift - a - one_shift)
        value = self._means[other] - self._means[one]
        return IntervalEstimate(float(value), compute_percentile_interval(b - a), both)


def _build_block(prices: RequestPrices, chosen: Ints, owner: Ints, models: int) -> Floats:
    """Return, per request: who answers (one-hot), seconds, joules, accuracy."""
    rows = np.arange(len(chosen))
    return np.column_stack(
        [
            np.eye(models)[owner[chosen]],
            prices.seconds[rows, chosen],
            prices.joules[rows, chosen],
            prices.accuracy[chosen],
        ]
    )


def _bootstrap_means(
    rows: Floats, replicates: int, rng: np.random.Generator, on_replicates: Callable[[int], None]
) -> Floats:
    """Return the means of `replicates` resamples of the rows."""
    n = len(rows)
    found = np.empty((replicates, rows.shape[1]))
    step = max(1, min(replicates, _CELLS // n))
    for begin in range(0, replicates, step):
        size = min(step, replicates - begin)
        picks = rng.integers(0, n, (size, n)) + (np.arange(size) * n)[:, None]
        counts = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)
        found[begin : begin + size] = counts @ rows / n
        on_replicates(size)
    return found


_CoefficientDraws = dict[tuple[Any, CostQuantity], Floats]


def _draw_coefficients(
    world: ReplayFleet, replicates: int, rng: np.random.Generator
) -> _CoefficientDraws:
    """Draw deviations of the coefficients wherever there is a covariance."""
    found: _CoefficientDraws = {}
    by_entry: dict[tuple[int, CostQuantity], Floats] = {}
    for place, entry in world.entries.items():
        for quantity in CostQuantity:
            covariance = getattr(entry, quantity.value).covariance
            if covariance is None:
                continue
            # Two places of one profile entry share its coefficients, hence their error.
            key = (id(entry), quantity)
            if key not in by_entry:
                values, vectors = np.linalg.eigh(np.array(covariance, dtype=float))
                root = vectors * np.sqrt(np.maximum(values, 0.0))
                by_entry[key] = rng.standard_normal((replicates, len(values))) @ root.T
            found[place, quantity] = by_entry[key]
    return found


def _compute_shift(
    world: ReplayFleet,
    prices: RequestPrices,
    chosen: Ints,
    quantity: CostQuantity,
    draws: _CoefficientDraws,
    replicates: int,
) -> Floats:
    """Return by how much each draw moves the plan's mean cost."""
    shift = np.zeros(replicates)
    for at, place in enumerate(world.deployments):
        drawn = draws.get((place, quantity))
        if drawn is not None:
            terms = prices.terms[quantity][chosen == at, at, : drawn.shape[1]]
            shift += drawn @ terms.sum(axis=0) / len(chosen)
    return shift


def find_served_requests(plans: Sequence[Ints]) -> Ints:
    """Return the requests that every plan can serve."""
    able = np.all([chosen >= 0 for chosen in plans], axis=0)
    return np.flatnonzero(able)
