"""Other policies judged from a log that was drawn with known propensities: two estimates.

With x a request, a who was drawn, p its logged propensity, r its judgement, c whom the policy
would take, and q(x, .) the accuracies that were logged when it was decided:

    ips  sum w r / sum w,  w = [a = c] / p                  (self-normalised: Swaminathan, Joachims,
                                                             "The self-normalized estimator", 2015)
    dr   mean of q(x, c) + w (r - q(x, c))                  (Dudík, Langford, Li, "Doubly robust
                                                             policy evaluation and learning", 2011)

Rules:
- q was made before r was known, so dr is unbiased whatever q is worth.
- Intervals are normal, 95%. As propensities are known, a variance is the larger of what the terms
  show and of what mean squared residual / propensity must give: few matches hide their variance.
- A request whose choice was never to be drawn, or too seldom (`MOST_WEIGHT`), tells nothing of it:
  it counts from 0 to 1 in the interval.
- All are means over the judged requests: who judges must not depend on who answered.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from calibration.arrays import Floats
from calibration.replay.decision_log_reader import RecordedRequest
from calibration.replay.replay import Ints
from calibration.replay.replay_fleet import ReplayFleet
from calibration.stats.intervals import Z_95, ConfidenceInterval

MOST_WEIGHT: Final = 500.0


class JudgedDraws(NamedTuple):
    """Judged requests (rows) and models (columns): what was drawn, how likely, and how it went."""

    drawn: Ints
    propensities: Floats
    accuracies: Floats
    scores: Floats


class ValueEstimate(NamedTuple):
    """An estimated share of right answers and its 95% interval."""

    value: float
    interval: ConfidenceInterval

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {"value": self.value, "interval_95": list(self.interval)}


class PolicyValue(NamedTuple):
    """What a policy's choices would have been judged."""

    ips: ValueEstimate
    doubly_robust: ValueEstimate
    matched: int
    """Requests for which it takes whom the log drew."""
    supported: float
    """Share of requests whose choice could be drawn."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "ips": self.ips.to_json(),
            "doubly_robust": self.doubly_robust.to_json(),
            "matched": self.matched,
            "supported_share": self.supported,
        }


class JudgedPlans(NamedTuple):
    """What feedback says of each plan, from so many judged requests that were drawn."""

    requests: int
    values: dict[str, PolicyValue]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        plans = [{"plan": name} | value.to_json() for name, value in self.values.items()]
        return {"requests": self.requests, "plans": plans}


def estimate_policy(judged: JudgedDraws, chosen: Ints) -> PolicyValue:
    """Return what is to be expected of choices: a column for each judged request."""
    rows = np.arange(len(chosen))
    p, q = judged.propensities[rows, chosen], judged.accuracies[rows, chosen]
    known = p * MOST_WEIGHT >= 1.0
    p = np.where(known, p, 1.0)
    match = known & (judged.drawn == chosen)
    weights = match / p
    residual = judged.scores - q
    total = float(weights.sum())
    squared = float(weights @ residual**2) / total if total > 0.0 else 0.25
    n, supported = len(chosen), float(known.mean())
    robust = np.where(known, q + weights * residual, q)
    variance = max(
        float(robust[known].var(ddof=1)) if known.sum() > 1 else 0.25,
        float((squared / p + q.var())[known].mean()) if known.any() else 0.25,
    )
    half = Z_95 * math.sqrt(variance * supported / n)
    missing = float(np.where(known, 0.0, q).mean())
    value = float(robust.mean())
    low, high = value - missing - half, value - missing + (1.0 - supported) + half
    doubly_robust = ValueEstimate(_clip(value), ConfidenceInterval(_clip(low), _clip(high)))
    return PolicyValue(
        _estimate_ips(judged.scores, weights, p[known], supported),
        doubly_robust, int(match.sum()), supported,
    )  # fmt: skip


def _estimate_ips(
    scores: Floats, weights: Floats, propensities: Floats, supported: float
) -> ValueEstimate:
    total = float(weights.sum())
    if total <= 0.0:
        return ValueEstimate(math.nan, ConfidenceInterval(0.0, 1.0))
    value = float(weights @ scores) / total
    off = weights * (scores - value)
    # Two more of each kind, so that matches that agree do not look certain (Agresti and Coull).
    matches = float((weights > 0.0).sum())
    share = (float(scores[weights > 0.0].sum()) + 2.0) / (matches + 4.0)
    seen = math.sqrt(float(off @ off)) / total
    due = math.sqrt(share * (1.0 - share) * float((1.0 / propensities).sum())) / len(propensities)
    half = Z_95 * max(seen, due)
    low, high = value - half, value + half
    return ValueEstimate(
        value,
        ConfidenceInterval(
            _clip(supported * max(0.0, low)), _clip(supported * min(1.0, high) + 1.0 - supported)
        ),
    )


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def find_judged_draws(
    world: ReplayFleet, requests: Sequence[RecordedRequest]
) -> tuple[Ints, JudgedDraws] | None:
    """Return which requests were drawn and judged, and these; None: none was.

    Columns are the fleet's models, in order. One that another model answered in the end than was
    drawn (a failure) tells nothing of the drawn one and is left out.
    """
    columns = {model: at for at, model in enumerate(world.models)}
    found: list[int] = []
    drawn: list[int] = []
    scores: list[float] = []
    propensities: list[Floats] = []
    accuracies: list[Floats] = []
    for at, request in enumerate(requests):
        if request.draws is None or request.score is None or request.answered is None:
            continue
        first = request.counted_for
        if first is None or first.model != request.answered.model or first.model not in columns:
            continue
        p, q = np.zeros(len(columns)), np.zeros(len(columns))
        for place, (chance, accuracy) in request.draws.items():
            if place.model in columns:
                p[columns[place.model]] += chance
                q[columns[place.model]] = max(q[columns[place.model]], accuracy)
        if p[columns[first.model]] <= 0.0:
            continue
        found.append(at)
        drawn.append(columns[first.model])
        scores.append(request.score)
        propensities.append(p)
        accuracies.append(q)
    if not found:
        return None
    return np.array(found, dtype=np.intp), JudgedDraws(
        np.array(drawn, dtype=np.intp), np.array(propensities), np.array(accuracies),
        np.array(scores),
    )  # fmt: skip


def match_models(world: ReplayFleet, chosen: Ints) -> Ints:
    """Return the model's column for each place's."""
    columns = {model: at for at, model in enumerate(world.models)}
    by_place = np.array([columns[place.model] for place in world.deployments], dtype=np.intp)
    return np.where(chosen >= 0, by_place[np.maximum(chosen, 0)], -1)
