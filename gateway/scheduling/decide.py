"""From candidates and weights to a ranking that keeps every number that led to it.

Rules: a candidate that cannot serve the request, or breaks a bound, is excluded with the reason;
the rest are scored by one policy; the lowest score wins; ties go to lower energy, then lower
time, then name. The same inputs give the same decision on every machine.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.scheduling import fair_ols, hybrid, relative
from gateway.scheduling.cost import FLOOR, Cost
from gateway.scheduling.decision import NO_BOUNDS, Bounds, Decision, Excluded, Scored, Weights
from gateway.scheduling.features import DEFAULT_OUTPUT, Features, OutputModel

Normaliser = Callable[
    [Sequence[float], Sequence[float], Sequence[float]],
    tuple[list[float], list[float], list[float]],
]
"""(accuracies, joules, seconds) of the candidates -> their (accuracy, energy, time) costs."""

POLICIES: Mapping[str, Normaliser] = {
    "relative": relative.costs,
    "fair-ols": fair_ols.costs,
    "hybrid": hybrid.costs,
}
"""Every policy by name; a new one is its file and a line here."""

DEFAULT_POLICY = "relative"

_DIGITS = 12
"""Scores are compared at this precision, below which two libms' exp() may disagree."""


@dataclass(frozen=True, slots=True)
class Option:
    """A deployment as the scheduler sees it: what it can do and what it would cost.

    `ratio` turns tiktoken's count into the model's own tokens; `context` is in tokens.
    """

    model: str
    deployment: str
    accuracy: float
    seconds: Cost
    joules: Cost
    context: int
    capabilities: frozenset[str] = frozenset()
    output: OutputModel = DEFAULT_OUTPUT
    ratio: float = 1.0
    name: tuple[str, str] = field(init=False, repr=False, compare=False)
    """(model, deployment)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", (self.model, self.deployment))


class Candidate(NamedTuple):
    """An option at the moment of the decision: requests that run and wait there, usable or not."""

    option: Option
    running: int = 0
    up: bool = True
    queued: int = 0


class _Estimate(NamedTuple):
    """A candidate that can serve the request, with its raw predictions."""

    candidate: Candidate
    tokens_in: int
    tokens_out: int
    seconds: float
    joules: float
    floored: bool


def decide(
    features: Features,
    candidates: Iterable[Candidate],
    weights: Weights,
    *,
    policy: str = DEFAULT_POLICY,
    bounds: Bounds = NO_BOUNDS,
    best_effort: bool = True,
    profile_version: str = "",
    label: str | None = None,
) -> Decision:
    """Rank the candidates for one request.

    With `best_effort` a request that no candidate can serve within its bounds still gets a
    ranking (least relative violation first); without, none. `label` is what the decision calls its
    policy where that is not the policy's name. Raises KeyError on an unknown policy.
    """
    normalise = POLICIES[policy]
    excluded: list[Excluded] = []
    able: list[_Estimate] = []
    broken: list[tuple[float, _Estimate]] = []
    for candidate in candidates:
        estimate = _estimate(features, candidate, excluded)
        if estimate is None:
            continue
        violation = 0.0
        if bounds is not NO_BOUNDS:
            violation = _violation(estimate, bounds, excluded)
        if violation:
            broken.append((violation, estimate))
        else:
            able.append(estimate)
    ranked: list[Scored] = []
    if able:
        ranked = _rank(able, weights, normalise)
    elif broken and best_effort:
        by_name = {estimate.candidate.option.name: violation for violation, estimate in broken}
        ranked = _rank([estimate for _, estimate in broken], weights, normalise)
        ranked.sort(key=lambda scored: by_name[scored.model, scored.deployment])
    return Decision(
        policy=label or policy,
        weights=weights,
        candidates=tuple(ranked),
        excluded=tuple(excluded),
        feasible=bool(able),
        profile_version=profile_version,
    )


def _estimate(
    features: Features, candidate: Candidate, excluded: list[Excluded]
) -> _Estimate | None:
    """Predict one candidate, or say in `excluded` why it cannot serve."""
    option, running, up, queued = candidate
    tokens_in = max(1, round(features.tokens_in * option.ratio))
    asked = features.asked_tokens_out
    lacking = features.needs - option.capabilities
    if lacking:
        out = ("capability", f"capability: does not offer {', '.join(sorted(lacking))}")
    elif tokens_in + (asked or 1) > option.context and not features.lenient:
        needed = f"{tokens_in} tokens in and {asked or 1} out"
        out = ("context", f"context: {needed} exceed {option.context}")
    elif not up:
        out = ("down", "down: no usable backend")
    else:
        room = option.context - tokens_in
        tokens_out = option.output.expected(tokens_in, room if asked is None else min(asked, room))
        seconds = option.seconds.raw(tokens_in, tokens_out, running)
        joules = option.joules.raw(tokens_in, tokens_out, running)
        floored = seconds < FLOOR or joules < FLOOR
        seconds = max(seconds, FLOOR)
        if queued:
            # Those ahead are taken to be like this one, and to leave as evenly as they came.
            seconds += seconds * queued / max(1, running)
        return _Estimate(candidate, tokens_in, tokens_out, seconds, max(joules, FLOOR), floored)
    excluded.append(Excluded(option.model, option.deployment, *out))
    return None


def _violation(estimate: _Estimate, bounds: Bounds, excluded: list[Excluded]) -> float:
    """Return by how much, relatively and in sum, the bounds are broken; 0 where they hold."""
    option = estimate.candidate.option
    latency_ms = estimate.seconds * 1e3
    found: list[tuple[float, str, str]] = []
    limit = bounds.max_latency_ms
    if limit is not None and latency_ms > limit:
        found.append(
            (_excess(latency_ms, limit), "max_latency_ms", f"{latency_ms:.6g} > {limit:.6g}")
        )
    limit = bounds.max_energy_joules
    if limit is not None and estimate.joules > limit:
        text = f"{estimate.joules:.6g} > {limit:.6g}"
        found.append((_excess(estimate.joules, limit), "max_energy_joules", text))
    limit = bounds.min_accuracy
    if limit is not None and option.accuracy < limit:
        text = f"{option.accuracy:.6g} < {limit:.6g}"
        found.append((_excess(limit, option.accuracy), "min_accuracy", text))
    if not found:
        return 0.0
    reason = "bound: " + ", ".join(f"{name} {text}" for _, name, text in found)
    excluded.append(Excluded(option.model, option.deployment, "bound", reason))
    return sum(excess for excess, _, _ in found)


def _excess(value: float, limit: float) -> float:
    """Return how far `value` is above `limit`, relative to it (floored: a limit may be 0)."""
    return (value - limit) / max(limit, FLOOR)


def _rank(estimates: list[_Estimate], weights: Weights, normalise: Normaliser) -> list[Scored]:
    """Score the estimates and sort them, best first."""
    accuracy_costs, energy_costs, time_costs = normalise(
        [estimate.candidate.option.accuracy for estimate in estimates],
        [estimate.joules for estimate in estimates],
        [estimate.seconds for estimate in estimates],
    )
    ranked = []
    for estimate, *costs in zip(estimates, accuracy_costs, energy_costs, time_costs, strict=True):
        option = estimate.candidate.option
        accuracy_cost, energy_cost, time_cost = costs
        terms = (
            weights.accuracy * accuracy_cost,
            weights.energy * energy_cost,
            weights.time * time_cost,
        )
        ranked.append(
            Scored(
                option.model,
                option.deployment,
                round(terms[0] + terms[1] + terms[2], _DIGITS),
                option.accuracy,
                estimate.seconds,
                estimate.joules,
                (accuracy_cost, energy_cost, time_cost),
                terms,
                estimate.candidate.running,
                estimate.candidate.queued,
                estimate.tokens_in,
                estimate.tokens_out,
                estimate.floored,
            )
        )
    if len(ranked) > 1:
        ranked.sort(key=_order)
    return ranked


def _order(scored: Scored) -> tuple[float, float, float, float, str, str]:
    # Accuracy stands before the name so that a dominated candidate loses even a full tie.
    return (
        scored.score,
        scored.predicted_joules,
        scored.predicted_seconds,
        -scored.accuracy,
        scored.model,
        scored.deployment,
    )
