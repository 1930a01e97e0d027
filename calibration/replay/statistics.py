"""What a plan of choices comes to, with 95% intervals of two kinds.

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

from calibration.replay.replay import Floats, Ints, Prices, World
from calibration.stats.intervals import Interval, percentiles, wilson
from gateway.scheduling.cost import Quantity

REPLICATES = 1000
_CELLS = 8_000_000
_SECONDS, _JOULES, _ACCURACY = -3, -2, -1


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its intervals; `both` None where the profile has no covariance."""

    value: float
    requests: Interval
    both: Interval | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "value": self.value,
            "interval_95_requests": list(self.requests),
            "interval_95_requests_and_profile": list(self.both) if self.both else None,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one plan comes to; costs are means per request."""

    name: str
    shares: dict[str, Estimate]
    joules: Estimate
    seconds: Estimate
    accuracy: Estimate
    fixed: bool = False
    """Whether it is one model by definition."""


@dataclass(frozen=True, slots=True)
class Saving:
    """One plan against another: joules and seconds saved a request, points of accuracy gained.

    All at unchanged load: each request keeps the load that it met. A plan that sends more traffic
    to a model changes what each request there costs, which no interval here has in it.
    """

    plan: str
    against: str
    joules: Estimate
    seconds: Estimate
    accuracy: Estimate
    changed: Estimate
    """Share of requests that another model would answer."""


class Comparison:
    """Plans under one profile, resampled together."""

    def __init__(
        self,
        world: World,
        prices: Prices,
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
        owner = np.array([self._models.index(place.model) for place in world.places])
        self._owners = [owner[chosen] for chosen in plans.values()]
        blocks = [_block(prices, chosen, owner, len(self._models)) for chosen in plans.values()]
        self._width = len(self._models) + 3
        changes = [a != b for a in self._owners for b in self._owners]
        stacked = np.hstack([*blocks, np.array(changes, dtype=float).T])
        self._means = stacked.mean(axis=0)
        rng = np.random.default_rng(seed)
        self._boot = _bootstrap(stacked, replicates, rng, on_replicates)
        draws = _draws(world, replicates, rng)
        self.uncertain = sorted({place.model for place, _ in draws})
        self._shifts = {
            quantity: [
                _shift(world, prices, chosen, quantity, draws, replicates)
                for chosen in plans.values()
            ]
            for quantity in Quantity
        }

    def outcome(self, name: str) -> Outcome:
        """Return one plan's figures."""
        shares = {
            model: self._share(self._column(name, at), fixed=name in self._fixed)
            for at, model in enumerate(self._models)
        }
        return Outcome(
            name,
            shares,
            joules=self._cost(name, Quantity.JOULES),
            seconds=self._cost(name, Quantity.SECONDS),
            accuracy=self._estimate(self._column(name, self._width + _ACCURACY)),
            fixed=name in self._fixed,
        )

    def saving(self, plan: str, against: str) -> Saving:
        """Return one plan against another."""
        one = self._column(plan, self._width + _ACCURACY)
        other = self._column(against, self._width + _ACCURACY)
        size = len(self._names)
        changed = size * self._width + self._names.index(plan) * size + self._names.index(against)
        return Saving(
            plan,
            against,
            joules=self._saved(plan, against, Quantity.JOULES),
            seconds=self._saved(plan, against, Quantity.SECONDS),
            accuracy=Estimate(
                float(self._means[one] - self._means[other]),
                percentiles(self._boot[:, one] - self._boot[:, other]),
            ),
            changed=self._share(changed, fixed=plan == against),
        )

    def _column(self, name: str, at: int) -> int:
        return self._names.index(name) * self._width + at

    def _estimate(self, column: int) -> Estimate:
        return Estimate(float(self._means[column]), percentiles(self._boot[:, column]))

    def _share(self, column: int, *, fixed: bool) -> Estimate:
        """Return a share of requests; resampling all or none of them would show no doubt."""
        value = float(self._means[column])
        if value in (0.0, 1.0) and not fixed:
            return Estimate(value, wilson(value * self._n, self._n))
        return self._estimate(column)

    def _quantity(self, name: str, quantity: Quantity) -> tuple[int, Floats]:
        at = _SECONDS if quantity is Quantity.SECONDS else _JOULES
        return self._column(name, self._width + at), self._shifts[quantity][self._names.index(name)]

    def _cost(self, name: str, quantity: Quantity) -> Estimate:
        column, shift = self._quantity(name, quantity)
        boot = self._boot[:, column]
        both = percentiles(boot + shift) if self.uncertain else None
        return Estimate(float(self._means[column]), percentiles(boot), both)

    def _saved(self, plan: str, against: str, quantity: Quantity) -> Estimate:
        one, one_shift = self._quantity(plan, quantity)
        other, other_shift = self._quantity(against, quantity)
        a, b = self._boot[:, one], self._boot[:, other]
        both = None
        if self.uncertain:
            both = percentiles(b + other_shift - a - one_shift)
        value = self._means[other] - self._means[one]
        return Estimate(float(value), percentiles(b - a), both)


def _block(prices: Prices, chosen: Ints, owner: Ints, models: int) -> Floats:
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


def _bootstrap(
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


_Draws = dict[tuple[Any, Quantity], Floats]


def _draws(world: World, replicates: int, rng: np.random.Generator) -> _Draws:
    """Draw deviations of the coefficients wherever there is a covariance."""
    found: _Draws = {}
    by_entry: dict[tuple[int, Quantity], Floats] = {}
    for place, entry in world.entries.items():
        for quantity in Quantity:
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


def _shift(
    world: World,
    prices: Prices,
    chosen: Ints,
    quantity: Quantity,
    draws: _Draws,
    replicates: int,
) -> Floats:
    """Return by how much each draw moves the plan's mean cost."""
    shift = np.zeros(replicates)
    for at, place in enumerate(world.places):
        drawn = draws.get((place, quantity))
        if drawn is not None:
            terms = prices.terms[quantity][chosen == at, at, : drawn.shape[1]]
            shift += drawn @ terms.sum(axis=0) / len(chosen)
    return shift


def served(plans: Sequence[Ints]) -> Ints:
    """Return the requests that every plan can serve."""
    able = np.all([chosen >= 0 for chosen in plans], axis=0)
    return np.flatnonzero(able)
