"""What a router's predictions are worth: quality against cost, and areas under that curve.

Definitions: PGR (performance gap recovered) is (quality - weak's) / (strong's - weak's); APGR its
mean over the share of the extra cost from none to all (RouteLLM, arXiv 2406.18665; a router that
draws at random has 0.5). AIQ is the mean quality over cost of the non-decreasing upper hull
(RouterBench, arXiv 2403.12031). ECE is the mean absolute difference between predicted and observed
shares over ten bins of equal width, weighted by rows (Guo et al., arXiv 1706.04599).
"""

from typing import NamedTuple

import numpy as np

from calibration.arrays import Floats

BINS = 10
_PRICES = 400


class QualityCostCurve(NamedTuple):
    """Mean cost and mean quality of a router, cheapest first; costs relative to the strong's."""

    cost: Floats
    quality: Floats
    weak: float
    strong: float
    """Qualities of the cheapest model and of the most accurate."""
    weak_cost: float

    @property
    def apgr(self) -> float:
        """Mean performance gap recovered; nan where both models are equally good."""
        if self.strong == self.weak:
            return float("nan")
        share = (self.cost - self.weak_cost) / max(1e-12, 1.0 - self.weak_cost)
        gap = (self.quality - self.weak) / (self.strong - self.weak)
        return float(np.trapezoid(gap, np.clip(share, 0.0, 1.0)))

    @property
    def aiq(self) -> float:
        """Average improvement in quality: the mean of the rising upper hull over cost."""
        rising = np.maximum.accumulate(self.quality)
        hull = _upper_hull(self.cost, rising)
        x, y = self.cost[hull], rising[hull]
        return float(np.trapezoid(y, x) / max(1e-12, x[-1] - x[0]))

    def find_cost(self, share: float) -> float:
        """Return the least cost that keeps this share of the strong model's quality."""
        good = np.flatnonzero(self.quality >= share * self.strong)
        return float(self.cost[good].min()) if len(good) else float("nan")


def draw_curve(predicted: Floats, scores: Floats, costs: Floats) -> QualityCostCurve:
    """Return the curve of a router that sends each prompt to argmax(predicted - price x cost).

    All are prompts x models, `costs` one number a model.
    """
    costs = costs / costs[int(np.argmax(scores.mean(axis=0)))]
    order = np.argsort(costs, kind="stable")
    predicted, scores, costs = predicted[:, order], scores[:, order], costs[order]
    strong = int(np.argmax(scores.mean(axis=0)))
    if strong == 1 and len(costs) == 2:  # noqa: PLR2004 - two models: exact, prompt by prompt
        rank = np.argsort(predicted[:, 0] - predicted[:, 1], kind="stable")
        gain = np.cumsum(np.concatenate([[0.0], (scores[:, 1] - scores[:, 0])[rank]]))
        share = np.arange(len(gain)) / len(rank)
        cost = costs[0] + share * (costs[1] - costs[0])
        quality = scores[:, 0].mean() + gain / len(rank)
    else:
        found = {_price(predicted, scores, costs, price) for price in _list_prices()}
        found.add((float(costs[0]), float(scores[:, 0].mean())))
        found.add((float(costs[strong]), float(scores[:, strong].mean())))
        cost, quality = map(np.array, zip(*sorted(found), strict=True))
    return QualityCostCurve(
        cost, quality, float(scores[:, 0].mean()), float(scores[:, strong].mean()), float(costs[0])
    )


def _list_prices() -> Floats:
    return np.concatenate([[0.0], np.geomspace(1e-5, 1e2, _PRICES)])


def _price(predicted: Floats, scores: Floats, costs: Floats, price: float) -> tuple[float, float]:
    chosen = np.argmax(predicted - price * costs, axis=1)
    rows = np.arange(len(chosen))
    return float(costs[chosen].mean()), float(scores[rows, chosen].mean())


def _upper_hull(x: Floats, y: Floats) -> list[int]:
    hull: list[int] = []
    for at in range(len(x)):
        while len(hull) > 1 and (y[hull[-1]] - y[hull[-2]]) * (x[at] - x[hull[-2]]) <= (
            y[at] - y[hull[-2]]
        ) * (x[hull[-1]] - x[hull[-2]]):
            hull.pop()
        hull.append(at)
    return hull


class ReliabilityBin(NamedTuple):
    """Rows whose prediction falls between two tenths: how many, predicted and observed shares."""

    n: int
    predicted: float
    observed: float


def list_reliability(predicted: Floats, observed: Floats) -> list[ReliabilityBin]:
    """Return the bins of a reliability diagram that hold rows."""
    at = np.minimum((predicted * BINS).astype(int), BINS - 1)
    return [
        ReliabilityBin(
            int((at == one).sum()),
            float(predicted[at == one].mean()),
            float(observed[at == one].mean()),
        )
        for one in range(BINS)
        if (at == one).any()
    ]


def compute_ece(bins: list[ReliabilityBin]) -> float:
    """Return the expected calibration error of some bins."""
    total = sum(one.n for one in bins)
    return sum(one.n * abs(one.predicted - one.observed) for one in bins) / max(1, total)


def shuffle_apgr(
    predicted: Floats, scores: Floats, costs: Floats, *, times: int = 20, seed: int = 0
) -> float:
    """Return the mean APGR of the same predictions dealt to other prompts, at the same cost."""
    rng = np.random.default_rng(seed)
    found = [
        draw_curve(predicted[rng.permutation(len(predicted))], scores, costs).apgr
        for _ in range(times)
    ]
    return float(np.mean(found))
