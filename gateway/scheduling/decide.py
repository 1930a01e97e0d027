"""From candidates and weights to a ranking that keeps every number that led to it.

Rules: a candidate that cannot serve the request, or breaks a bound at each of its places, is
excluded with the reason; the rest are scored by one policy; the lowest score wins; ties go to the
lower energy, then the lower time, then the higher accuracy, then model and deployment by name. The
same inputs give the same decision on every machine.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.scheduling import fair_ols, hybrid, relative
from gateway.scheduling.candidate import DeploymentOption, RoutingCandidate
from gateway.scheduling.cost import COST_FLOOR
from gateway.scheduling.decision import (
    NO_BOUNDS,
    ExcludedCandidate,
    MetricWeights,
    PredictionBounds,
    PromptSummary,
    RoutingDecision,
    ScoredCandidate,
)
from gateway.scheduling.estimate import (
    CandidateEstimate,
    bound_costs,
    estimate_candidate,
    move_estimate,
)
from gateway.scheduling.features import RequestFeatures
from gateway.scheduling.tuple_maker import tuple_maker

__all__ = [
    "DEFAULT_POLICY",
    "NO_POLICY",
    "POLICIES",
    "DeploymentOption",
    "RoutingCandidate",
    "make_decision",
    "repeat_decision",
]

Normaliser = Callable[
    [Sequence[float], Sequence[float], Sequence[float]],
    tuple[list[float], list[float], list[float]],
]
"""(accuracies, joules, seconds) of the candidates -> their (accuracy, energy, time) costs."""

POLICIES: Mapping[str, Normaliser] = {
    "relative": relative.normalise_costs,
    "fair-ols": fair_ols.normalise_costs,
    "hybrid": hybrid.normalise_costs,
}
"""Every policy by name; a new one is its file and a line here."""

DEFAULT_POLICY = "relative"
NO_POLICY = "none"
"""What a decision calls the policy of a request that named its model."""

_make_scored = tuple_maker(ScoredCandidate)
_DIGITS = 12
"""Scores are compared at this precision, below which two libms' exp() may disagree."""


def make_decision(
    features: RequestFeatures,
    candidates: Iterable[RoutingCandidate],
    weights: MetricWeights,
    *,
    policy: str = DEFAULT_POLICY,
    bounds: PredictionBounds = NO_BOUNDS,
    best_effort: bool = True,
    profile_version: str = "",
    label: str | None = None,
    reference_load: float | None = None,
    place_weights: MetricWeights | None = None,
    prompt: PromptSummary | None = None,
) -> RoutingDecision:
    """Rank the candidates for one request.

    With `best_effort` a request that no candidate can serve within its bounds still gets a
    ranking (least relative violation first); without, none. `label` is what the decision calls its
    policy where that is not the policy's name. `reference_load` is the load at which candidates'
    joules are compared; None: each place's own. `place_weights` choose among a candidate's places;
    None: `weights` do. `prompt` is what accuracies were read from. Raises KeyError on an unknown
    policy.
    """
    normalise = POLICIES[policy]
    excluded: list[ExcludedCandidate] = []
    able: list[CandidateEstimate] = []
    broken: list[tuple[float, CandidateEstimate]] = []
    bounded = bounds.has_limits
    for candidate in candidates:
        made = estimate_candidate(
            features, candidate, place_weights or weights, reference_load, excluded
        )
        if made is None:
            continue
        violation = 0.0
        if bounded:
            violation, made = _keep_bounds(features, made, bounds, reference_load, excluded)
        if violation:
            broken.append((violation, made))
        else:
            able.append(made)
    if bounds.accuracy_within is not None:
        able = _keep_near_best(able, bounds.accuracy_within, excluded)
    ranked: list[ScoredCandidate] = []
    if able:
        ranked = _rank_estimates(able, weights, normalise)
    elif broken and best_effort:
        by_name = {made.candidate.option.name: violation for violation, made in broken}
        ranked = _rank_estimates([made for _, made in broken], weights, normalise)
        ranked.sort(key=lambda scored: by_name[scored.model, scored.deployment])
    return RoutingDecision(
        policy=label or policy,
        weights=weights,
        candidates=tuple(ranked),
        excluded=tuple(excluded),
        feasible=bool(able),
        profile_version=profile_version,
        reference_load=reference_load,
        prompt=prompt,
    )


def repeat_decision(
    decision: RoutingDecision, weights: MetricWeights, policy: str
) -> RoutingDecision:
    """Rank a decision's candidates again, from the predictions that it was made of.

    By its own weights and policy it is the same decision. Each candidate stays at the place that
    was chosen for it. Raises KeyError on an unknown policy.
    """
    normalise = POLICIES[policy]
    if not decision.candidates:
        return decision._replace(policy=policy, weights=weights)
    costs = normalise(
        [scored.accuracy for scored in decision.candidates],
        [scored.reference_joules for scored in decision.candidates],
        [scored.predicted_seconds for scored in decision.candidates],
    )
    ranked = []
    for scored, a, e, t in zip(decision.candidates, *costs, strict=True):
        terms = (weights.accuracy * a, weights.energy * e, weights.time * t)
        score = round(sum(terms), _DIGITS)
        ranked.append(scored._replace(score=score, costs=(a, e, t), terms=terms))
    ranked.sort(key=_order_by_score)
    return decision._replace(policy=policy, weights=weights, candidates=tuple(ranked))


def _order_by_score(scored: ScoredCandidate) -> tuple[float, float, float, float, str, str]:
    """Return what candidates are sorted by, ties too.

    Accuracy stands before the name so that a dominated candidate loses even a full tie.
    """
    return (
        scored.score, scored.reference_joules, scored.predicted_seconds, -scored.accuracy,
        scored.model, scored.deployment,
    )  # fmt: skip


def _keep_near_best(
    able: list[CandidateEstimate], within: float, excluded: list[ExcludedCandidate]
) -> list[CandidateEstimate]:
    """Return those whose accuracy lies within so much of the best one's."""
    floor = max((made.candidate.accuracy for made in able), default=0.0) - within - _ROUNDING
    near = []
    for made in able:
        option, accuracy = made.candidate.option, made.candidate.accuracy
        if accuracy >= floor:
            near.append(made)
        else:
            why = f"bound: accuracy_within {accuracy:.6g} < {floor:.6g}"
            excluded.append(ExcludedCandidate(option.model, option.deployment, "bound", why))
    return near


_ROUNDING = 1e-12


def _keep_bounds(
    features: RequestFeatures,
    made: CandidateEstimate,
    bounds: PredictionBounds,
    reference_load: float | None,
    excluded: list[ExcludedCandidate],
) -> tuple[float, CandidateEstimate]:
    """Return the candidate at the first of its places that keeps within, the chosen one first.

    Where none does: the least bad one, with by how much, relatively and in sum, it breaks them.
    """
    least = math.inf
    best, why = made, ""
    for moved in move_estimate(made, reference_load):
        found = _find_violations(features, moved, bounds)
        violation = sum(excess for excess, _ in found)
        if violation < least:
            least, best, why = violation, moved, ", ".join(text for _, text in found)
        if not found:
            break
    if why:
        option = made.candidate.option
        excluded.append(
            ExcludedCandidate(option.model, option.deployment, "bound", f"bound: {why}")
        )
    return least, best


def _find_violations(
    features: RequestFeatures, made: CandidateEstimate, bounds: PredictionBounds
) -> list[tuple[float, str]]:
    """Return (relative excess, words) of each bound that the estimate breaks at its place."""
    seconds, joules = bound_costs(features, made, bounds.quantile)
    latency_ms = seconds * 1e3
    found: list[tuple[float, str]] = []
    for name, value, limit in (
        ("max_latency_ms", latency_ms, bounds.max_latency_ms),
        ("max_energy_joules", joules, bounds.max_energy_joules),
    ):
        if limit is not None and value > limit:
            found.append((_relative_excess(value, limit), f"{name} {value:.6g} > {limit:.6g}"))
    limit = bounds.min_accuracy
    accuracy = made.candidate.accuracy_lower
    if limit is not None and accuracy < limit:
        text = f"min_accuracy {accuracy:.6g} < {limit:.6g}"
        found.append((_relative_excess(limit, accuracy), text))
    return found


def _relative_excess(value: float, limit: float) -> float:
    """Return how far `value` is above `limit`, relative to it (floored: a limit may be 0)."""
    return (value - limit) / max(limit, COST_FLOOR)


def _rank_estimates(
    estimates: list[CandidateEstimate], weights: MetricWeights, normalise: Normaliser
) -> list[ScoredCandidate]:
    """Score the estimates and sort them, best first."""
    accuracies = [made.candidate.accuracy for made in estimates]
    accuracy_costs, energy_costs, time_costs = normalise(
        accuracies,
        [made.reference_joules for made in estimates],
        [made.seconds for made in estimates],
    )
    of_accuracy, of_energy, of_time = weights
    ranked: list[ScoredCandidate] = []
    for made, share, a, e, t in zip(
        estimates, accuracies, accuracy_costs, energy_costs, time_costs, strict=True
    ):
        candidate, tokens, place, seconds, joules, reference, floored, places = made
        option = candidate.option
        accuracy, energy, time = of_accuracy * a, of_energy * e, of_time * t
        model, deployment = option.name
        ranked.append(_make_scored((
            model,
            deployment,
            round(accuracy + energy + time, _DIGITS),
            share,
            seconds,
            joules,
            (a, e, t),
            (accuracy, energy, time),
            place.running,
            place.queued,
            tokens.input,
            max(1, round(tokens.output)),
            floored,
            reference,
            tokens.output_p90,
            tokens.source,
            tokens.length,
            place.backend,
            places,
            None if candidate.judged is None else candidate.judged.lower,
        )))  # fmt: skip
    # Where it was in the input ends a tie between two of one name.
    ranked.sort(key=_order_by_score)
    return ranked
