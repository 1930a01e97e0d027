"""Which model is chosen where: the scheduler's costs, and its choice at every weighting of them.

Rules: predictions and normalised costs come from `gateway.scheduling.decide`, never from here.
They do not depend on the weights, so one decision per length tells every weight: the score is
linear in the weights, and where a model wins is a convex polygon of the triangle.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.arrays import Floats
from gateway.profile import ModelProfile
from gateway.scheduling.cost import CostQuantity
from gateway.scheduling.decide import (
    DEFAULT_POLICY,
    POLICIES,
    DeploymentOption,
    RoutingCandidate,
    make_decision,
)
from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.features import OutputModel, RequestFeatures

POLICY_NAMES = tuple(POLICIES)
UNLIMITED = 10**9
"""A profile holds no context windows: the figures ignore them, and say so."""
_THIRDS = MetricWeights(1 / 3, 1 / 3, 1 / 3)
_DIGITS = 12  # those at which `make_decision` compares scores
_SAME = 1e-12


@dataclass(frozen=True, slots=True)
class PricedModels:
    """The models' predictions and normalised costs (k x 3) for one length and policy.

    Models stand in the order in which ties go; `joules`, `seconds` and `accuracy` follow it.
    """

    names: tuple[str, ...]
    costs: Floats
    joules: Floats
    seconds: Floats
    accuracy: Floats
    tokens_in: tuple[int, ...]
    tokens_out: tuple[int, ...]
    floored: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class WinRegion:
    """The weights at which one model is chosen: corners (m x 3), and the share of the triangle."""

    name: str
    corners: Floats
    share: float


def build_option(name: str, model: ModelProfile) -> DeploymentOption:
    """Return a profile's model as a candidate of the scheduler."""
    return DeploymentOption(
        model=name,
        deployment=name,
        accuracy=model.accuracy.default,
        seconds=model.seconds.to_cost_function(CostQuantity.SECONDS),
        joules=model.joules.to_cost_function(CostQuantity.JOULES),
        context=UNLIMITED,
        output=model.to_output_model(),
        ratio=model.tokens.ratio,
    )


def price_models(
    options: Iterable[DeploymentOption],
    tokens_in: int,
    tokens_out: int | None = None,
    *,
    policy: str = DEFAULT_POLICY,
    running: int = 0,
) -> PricedModels:
    """Score by the scheduler; `tokens_out` None: each model's expected tokens out."""
    if tokens_out is not None:
        fixed = OutputModel(0.0, float(tokens_out))
        options = [replace(one, output=fixed) for one in options]
    decision = make_decision(
        RequestFeatures(tokens_in),
        [RoutingCandidate(one, running) for one in options],
        _THIRDS,
        policy=policy,
    )
    ranked = sorted(
        decision.candidates,
        key=lambda one: (
            one.predicted_joules, one.predicted_seconds, -one.accuracy, one.model, one.deployment
        ),
    )  # fmt: skip
    return PricedModels(
        names=tuple(one.model for one in ranked),
        costs=np.array([one.costs for one in ranked], dtype=float),
        joules=np.array([one.predicted_joules for one in ranked]),
        seconds=np.array([one.predicted_seconds for one in ranked]),
        accuracy=np.array([one.accuracy for one in ranked]),
        tokens_in=tuple(one.tokens_in for one in ranked),
        tokens_out=tuple(one.tokens_out for one in ranked),
        floored=tuple(one.floored for one in ranked),
    )


def find_winners(priced: PricedModels, weights: Floats) -> NDArray[np.intp]:
    """Return, for each row of weights (n x 3), the chosen model's index in `priced.names`."""
    terms = weights[:, None, :] * priced.costs[None, :, :]
    scores = np.round(terms[..., 0] + terms[..., 1] + terms[..., 2], _DIGITS)
    # argmin takes the first of equal scores, and the names are in tie-break order.
    found: NDArray[np.intp] = np.argmin(scores, axis=1)
    return found


def sweep_weight(metric: int, steps: int) -> Floats:
    """Return weights (steps x 3) with one metric from 0 to 1 and the others split evenly."""
    at = np.linspace(0.0, 1.0, steps)
    weights = np.repeat(((1.0 - at) / 2.0)[:, None], 3, axis=1)
    weights[:, metric] = at
    return weights


def find_win_regions(priced: PricedModels) -> list[WinRegion]:
    """Return the polygon of weights at which each model is chosen; never chosen: no polygon."""
    found = []
    for m, name in enumerate(priced.names):
        corners: Floats = np.eye(3)
        for n in range(len(priced.names)):
            gap = priced.costs[m] - priced.costs[n]
            if n == m or (n > m and np.abs(gap).max() <= _SAME):
                continue
            if np.abs(gap).max() <= _SAME:
                corners = corners[:0]  # an equal model wins the tie-break
            corners = _clip_polygon(corners, gap)
        share = _compute_area_share(corners)
        if share > _SAME:
            found.append(WinRegion(name, corners, share))
    return found


def find_tied_models(priced: Sequence[PricedModels]) -> list[tuple[str, str]]:
    """Return pairs of models of equal cost at all lengths; the first of a pair wins every tie."""
    pairs: set[tuple[str, str]] | None = None
    for one in priced:
        same = {
            (one.names[m], one.names[n])
            for m in range(len(one.names))
            for n in range(m + 1, len(one.names))
            if np.abs(one.costs[m] - one.costs[n]).max() <= _SAME
        }
        pairs = same if pairs is None else pairs & same
        if not pairs:
            break
    return sorted(pairs or ())


def find_pareto_front(costs: Floats, accuracies: Floats) -> list[int]:
    """Return the indices of the Pareto front: none is cheaper and as good, or better and as cheap.

    Cheapest first; equals of a point on the front are on it too.
    """
    places = range(len(costs))

    def is_dominated(at: int) -> bool:
        return any(
            costs[other] <= costs[at]
            and accuracies[other] >= accuracies[at]
            and (costs[other] < costs[at] or accuracies[other] > accuracies[at])
            for other in places
        )

    return sorted(
        (at for at in places if not is_dominated(at)), key=lambda at: (float(costs[at]), at)
    )


def project_to_triangle(weights: Floats) -> Floats:
    """Turn weights (n x 3) into points (n x 2): energy left, time right, accuracy above."""
    weights = np.atleast_2d(weights)
    return np.column_stack(
        [weights[:, 2] + weights[:, 0] / 2.0, weights[:, 0] * np.sqrt(3.0) / 2.0]
    )


def _clip_polygon(corners: Floats, gap: Floats) -> Floats:
    """Keep the part of a convex polygon where gap·weights <= 0 (Sutherland and Hodgman, 1974)."""
    kept: list[Floats] = []
    sides = corners @ gap
    for at in range(len(corners)):
        here, there = sides[at - 1], sides[at]
        if (here <= 0.0) != (there <= 0.0):
            part = here / (here - there)
            kept.append(corners[at - 1] + part * (corners[at] - corners[at - 1]))
        if there <= 0.0:
            kept.append(corners[at])
    return np.array(kept) if kept else np.empty((0, 3))


def _compute_area_share(corners: Floats) -> float:
    """Return a polygon's share of the whole triangle."""
    if len(corners) < 3:  # noqa: PLR2004
        return 0.0
    x, y = project_to_triangle(corners).T
    twice = abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
    return float(twice / (np.sqrt(3.0) / 2.0))
