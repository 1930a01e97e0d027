"""Who is tried although another looks best: propensities within an hour's budget, and the draw.

Rules of this file:

- The greedy choice is the ranking's first. What is uncertain is accuracy alone, so a candidate's
  score has the deviation weight x deviation of its accuracy.
- `thompson`: a candidate's propensity is the chance that its score is the lowest (Thompson, 1933;
  computed, not sampled, so that the log has it). `linucb`: all goes to the lowest score less
  `width` deviations (Li et al., "A contextual-bandit approach to personalized news article
  recommendation", 2010). To both a small even share is added, so that other policies can be judged
  from the log.
- Whoever may be the best, its score less two deviations being below the greedy one's, has a share
  of its own, in proportion to how little is known. Else one whose first judgements were bad, or
  that became better while nobody asked it, waits for the even share for weeks: at 0.7 deviations
  `linucb` never returns to it. (Nobody is given up before the intervals part, as in successive
  elimination: Even-Dar, Mannor and Mansour, "Action elimination and stopping conditions", 2006.)
- An hour's expected right answers lost and joules added, against the greedy choice, stay within
  their budgets: the propensities of all others shrink with what is left of the smaller one, and are
  charged as expectations. Any 60 minutes count, not those of the clock.
- The draw is a hash of the seed and a running number: the same seed, inputs and order give the same
  draws on every machine.
"""

import hashlib
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from gateway.scheduling.answer_length import find_normal_quantile
from gateway.scheduling.decision import Exploration, RoutingDecision, ScoredCandidate

_POINTS: Final = 24
_MINUTE: Final = 60.0
_WINDOW_MINUTES: Final = 60
_LEAST_SCALE: Final = 0.01
_LEAST_PROPENSITY: Final = 1e-4
_LIKELY_DEVIATIONS: Final = 2.0
_UNTAUGHT_VARIANCE: Final = 0.01
"""About that of a model's accuracy before anything is judged."""
_MOST_LIKELY_SHARE: Final = 0.15
_MOST_ARMS: Final = 6


class ExplorationMethod(StrEnum):
    """How propensities are made of what is uncertain."""

    THOMPSON = "thompson"
    LINUCB = "linucb"


@dataclass(frozen=True, slots=True)
class ExplorationRules:
    """`even_share` goes to all candidates alike, `likely_share` to each that may be the best.

    `width` is what deviations are multiplied by.

    Less than the whole deviation loses less in practice (Chapelle and Li, "An empirical evaluation
    of Thompson sampling", 2011).
    """

    method: ExplorationMethod
    answers_per_hour: float
    joules_per_hour: float
    seed: int = 0
    even_share: float = 0.01
    width: float = 0.7
    likely_share: float = 0.03


class ExplorationCharge(NamedTuple):
    """What one draw was charged, and when, in Unix seconds."""

    at_seconds: float
    answers: float
    joules: float


class ExplorationBudget:
    """What exploring cost in the last 60 minutes, by the minute."""

    def __init__(self, answers_per_hour: float, joules_per_hour: float) -> None:
        self._most = (answers_per_hour, joules_per_hour)
        self._minutes: deque[list[float]] = deque()

    def find_scale(self, at_seconds: float, answers: float, joules: float) -> float:
        """Return by how much this much exploring has to shrink, 1 for not at all.

        It shrinks with the share of the budget that is left, so that there always is some.
        """
        minute = at_seconds // _MINUTE
        # The oldest minute counts until it is over a whole window ago.
        while self._minutes and self._minutes[0][0] < minute - _WINDOW_MINUTES:
            self._minutes.popleft()
        scale = 1.0
        for at, (most, wanted) in enumerate(zip(self._most, (answers, joules), strict=True), 1):
            if wanted <= 0.0:
                continue
            left = most - sum(one[at] for one in self._minutes)
            if left <= 0.0:
                return 0.0
            scale = min(scale, left / most, left / wanted)
        return scale if scale >= _LEAST_SCALE else 0.0

    def spend(self, at_seconds: float, answers: float, joules: float) -> None:
        """Note what one draw is expected to cost."""
        minute = at_seconds // _MINUTE
        if not self._minutes or self._minutes[-1][0] < minute:
            self._minutes.append([minute, 0.0, 0.0])
        last = self._minutes[-1]
        last[1] += answers
        last[2] += joules

    def refund(self, charge: ExplorationCharge) -> None:
        """Take back what was spent on a draw that came to nothing."""
        minute = charge.at_seconds // _MINUTE
        for one in self._minutes:
            if one[0] == minute:
                one[1] = max(0.0, one[1] - charge.answers)
                one[2] = max(0.0, one[2] - charge.joules)

    def to_state(self) -> list[list[float]]:
        """Return the minutes as plain values."""
        return [list(one) for one in self._minutes]

    def restore(self, minutes: Sequence[Sequence[float]]) -> None:
        """Take over what `to_state` gave. Raises ValueError, TypeError."""
        found: deque[list[float]] = deque()
        for minute, answers, joules in minutes[-_WINDOW_MINUTES - 1 :]:
            one = [float(minute), float(answers), float(joules)]
            if not all(math.isfinite(value) and value >= 0.0 for value in one):
                raise ValueError("a minute's spending is no number")
            found.append(one)
        self._minutes = found


class AccuracyExplorer:
    """One process's draws."""

    def __init__(self, rules: ExplorationRules) -> None:
        self._rules = rules
        self._budget = ExplorationBudget(rules.answers_per_hour, rules.joules_per_hour)
        self._drawn = 0

    def explore(
        self,
        decision: RoutingDecision,
        deviations: Mapping[str, float],
        at_seconds: float,
        *,
        draws: bool = True,
    ) -> RoutingDecision:
        """Return the decision with its propensities, whoever is drawn first.

        `deviations` are those of each model's accuracy. Without `draws` the ranking stays and
        nothing is charged. A decision in which accuracy counts for nothing, or by a policy whose
        costs are not linear in it, or that breaks a bound, stays as it is.
        """
        weight = decision.weights.accuracy
        if weight <= 0.0 or not decision.feasible or decision.policy not in _LINEAR_POLICIES:
            return decision
        arms = _find_arms(decision.candidates)
        if len(arms) < 2:  # noqa: PLR2004 - nobody to try
            return decision
        scores = [one.score for one in arms]
        spreads = [weight * deviations.get(one.model, 0.0) for one in arms]
        wanted = self._find_propensities(scores, spreads, weight)
        greedy = arms[0]
        answers = sum(
            part * max(0.0, greedy.accuracy - one.accuracy)
            for part, one in zip(wanted, arms, strict=True)
        )
        joules = sum(
            part * max(0.0, one.predicted_joules - greedy.predicted_joules)
            for part, one in zip(wanted, arms, strict=True)
        )
        scale = self._budget.find_scale(at_seconds, answers, joules)
        others = [_drop_tiny(part * scale) for part in wanted[1:]]
        propensities = [1.0 - sum(others), *others]
        chosen, lot = 0, None
        if draws:
            self._budget.spend(at_seconds, answers * scale, joules * scale)
            lot = self._draw()
            chosen = _pick(propensities, lot)
        first = arms[chosen]
        return decision._replace(
            candidates=(first, *(one for one in decision.candidates if one is not first)),
            exploration=Exploration(
                self._rules.method.value,
                first is not greedy,
                greedy.deployment,
                {(one.model, one.deployment): p for one, p in zip(arms, propensities, strict=True)},
                lot,
                answers * scale,
                joules * scale,
            ),
        )

    def refund(self, charge: ExplorationCharge) -> None:
        """Take back the charge of a draw whose request was not sent by it."""
        self._budget.refund(charge)

    def to_state(self) -> dict[str, Any]:
        """Return the draws made and what they cost."""
        return {"drawn": self._drawn, "minutes": self._budget.to_state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `to_state` gave. Raises ValueError, TypeError, KeyError."""
        self._drawn = int(state["drawn"])
        self._budget.restore(state["minutes"])

    def _find_propensities(
        self, scores: list[float], spreads: list[float], weight: float
    ) -> list[float]:
        """Return each candidate's before the budget; they sum to 1. The first is the greedy one."""
        rules = self._rules
        widened = [rules.width * one for one in spreads]
        if rules.method is ExplorationMethod.THOMPSON:
            found = find_best_chances(scores, widened)
        else:
            hoped = [s - d for s, d in zip(scores, widened, strict=True)]
            best = hoped.index(min(hoped))
            found = [float(at == best) for at in range(len(scores))]
        floors = [rules.even_share / len(scores)] * len(scores)
        for at, (score, spread) in enumerate(zip(scores, spreads, strict=True)):
            if at and score - _LIKELY_DEVIATIONS * spread < scores[0]:
                unknown = max(1.0, (spread / weight) ** 2 / _UNTAUGHT_VARIANCE)
                share = min(_MOST_LIKELY_SHARE, rules.likely_share * unknown)
                floors[at] = max(floors[at], share)
        left = 1.0 - sum(floors)
        return [left * part + floor for part, floor in zip(found, floors, strict=True)]

    def _draw(self) -> float:
        """Return the next lot, 0 <= lot < 1."""
        self._drawn += 1
        told = hashlib.sha256(f"{self._rules.seed}\n{self._drawn}".encode()).digest()
        return int.from_bytes(told[:6], "big") / (1 << 48)


_LINEAR_POLICIES: Final = frozenset({"relative", "fair-ols"})


def find_best_chances(scores: Sequence[float], spreads: Sequence[float]) -> list[float]:
    """Return the chance that each of these independent normal scores is the lowest.

    Each one's distribution is cut into `_POINTS` parts of equal chance; they sum to 1.
    """
    found = []
    for at, (score, spread) in enumerate(zip(scores, spreads, strict=True)):
        others = [
            (other, _SQUARE_ROOT_2 * max(width, _LEAST_SPREAD))
            for place, (other, width) in enumerate(zip(scores, spreads, strict=True))
            if place != at
        ]
        total = 0.0
        for point in _MIDDLES:
            value, chance = score + spread * point, 1.0
            for other, width in others:
                chance *= 0.5 * math.erfc((value - other) / width)
            total += chance
        found.append(total)
    total = sum(found)
    return [part / total for part in found] if total > 0.0 else [1.0] + [0.0] * (len(found) - 1)


_SQUARE_ROOT_2: Final = math.sqrt(2.0)
_LEAST_SPREAD: Final = 1e-9


_MIDDLES: Final = tuple(find_normal_quantile((at + 0.5) / _POINTS) for at in range(_POINTS))


def _find_arms(candidates: Sequence[ScoredCandidate]) -> list[ScoredCandidate]:
    """Return the best candidate of each model: another deployment of it teaches nothing."""
    best: dict[str, ScoredCandidate] = {}
    for one in candidates:
        best.setdefault(one.model, one)
    return list(best.values())[:_MOST_ARMS]


def _drop_tiny(propensity: float) -> float:
    return propensity if propensity >= _LEAST_PROPENSITY else 0.0


def _pick(propensities: Sequence[float], lot: float) -> int:
    """Return who the lot falls on."""
    for at, part in enumerate(propensities):
        lot -= part
        if lot < 0.0:
            return at
    return 0
