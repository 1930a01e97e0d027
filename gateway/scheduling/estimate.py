"""What one request would cost on one candidate: tokens, seconds and joules, at each place.

Rules of this file:

- Costs are expected values over the distribution of answer lengths, never costs of an expected
  length cut afterwards; a hard bound is judged at a quantile, because an expected value breaks
  half of the promises.
- Each place is predicted at its own load (what a meter will say); models are compared by their
  joules at one reference load, and by their seconds where the request would really go.
- k answers cost k times the joules and the seconds of the longest, at a load of k - 1 more.
"""

import math
from typing import NamedTuple

from gateway.scheduling.answer_length import AnswerLength, Moments, find_normal_quantile
from gateway.scheduling.candidate import CandidatePlace, RoutingCandidate
from gateway.scheduling.cost import COST_FLOOR, CostFunction
from gateway.scheduling.decision import ExcludedCandidate, MetricWeights, PlacePrediction
from gateway.scheduling.features import RequestFeatures

P90 = 0.9
PROFILE, LIMIT = "profile", "limit"
"""Sources of a length: the profile's own distribution; the limit, where answers run to it."""
_HERE = "only"

_LARGEST_LIMIT = 1 << 53
"""No answer is longer, and every integer up to it is a float."""


class TokensExpected(NamedTuple):
    """Tokens of a request on one candidate: of all sequences, and of a mean one by itself.

    `low` and `high` are the clamp of one answer.
    """

    input: int
    output: float
    output_p90: int
    length: AnswerLength
    source: str
    each_in: float
    longest_in: float
    each_out: float
    low: float
    high: float

    def compute_moments(self) -> Moments:
        """Return the first two moments of one answer's tokens."""
        return self.length.compute_moments(self.low, self.high)


class CandidateEstimate(NamedTuple):
    """A candidate that can serve the request, with its predictions at the chosen place."""

    candidate: RoutingCandidate
    tokens: TokensExpected
    place: CandidatePlace
    seconds: float
    joules: float
    reference_joules: float
    floored: bool
    places: tuple[PlacePrediction, ...]


def estimate_candidate(
    features: RequestFeatures,
    candidate: RoutingCandidate,
    weights: MetricWeights,
    reference_load: float | None,
    excluded: list[ExcludedCandidate],
) -> CandidateEstimate | None:
    """Predict one candidate, or say in `excluded` why it cannot serve."""
    option = candidate.option
    lacking = features.needs - option.capabilities
    if lacking:
        reason = f"capability: does not offer {', '.join(sorted(lacking))}"
        excluded.append(ExcludedCandidate(option.model, option.deployment, "capability", reason))
        return None
    tokens = expect_tokens(features, candidate)
    # vLLM takes min(context - prompt, limit): a large limit alone shuts nobody out.
    needed_out = _find_needed_tokens(features, tokens)
    if tokens.longest_in + needed_out > option.context and not features.always_fits:
        needed = f"{round(tokens.longest_in)} tokens in and {round(needed_out)} out"
        reason = f"context: {needed} exceed {option.context}"
        excluded.append(ExcludedCandidate(option.model, option.deployment, "context", reason))
        return None
    if not candidate.up:
        code, reason = "down", "down: no usable backend"
        if candidate.full:
            code, reason = "full", "full: as many requests are served there as may be"
        excluded.append(ExcludedCandidate(option.model, option.deployment, code, reason))
        return None
    return _predict(features, candidate, tokens, weights, reference_load)


def expect_tokens(features: RequestFeatures, candidate: RoutingCandidate) -> TokensExpected:
    """Return the tokens of a request on a candidate, context aside from its limit on the answer."""
    option = candidate.option
    total = features.scale(candidate.scale or option.scale)
    longest = total if features.prompts == 1 else max(1.0, total * features.longest)
    kept = features.truncate_tokens
    if kept is not None:
        # -1: vLLM cuts a prompt to the context, and leaves one token for the answer.
        kept = kept if kept > 0 else option.context - 1
        longest = min(longest, kept)
        total = min(total, kept * features.prompts)
    each_in = total / features.prompts
    learnt = candidate.learnt
    length = option.output.describe(each_in) if learnt is None else learnt.length
    asked, room = features.asked_tokens_out, option.context - longest
    high = float(max(1, room if asked is None else min(asked, room)))
    low = min(float(max(1, features.min_tokens)), high)
    if features.ignore_eos:
        low, source = high, LIMIT
    else:
        source = PROFILE if learnt is None else learnt.source
    each_out = length.compute_mean(low, high)
    count = features.sequences
    p90 = length.find_quantile(P90, low, high)
    if count > 1:
        deviation = length.compute_moments(low, high).deviation
        spread = find_normal_quantile(P90) * deviation * math.sqrt(count)
        p90 = min(count * high, count * each_out + spread)
    return TokensExpected(
        total, each_out * count, max(1, round(p90)), length, source, each_in, longest,
        each_out, low, high,
    )  # fmt: skip


def bound_costs(
    features: RequestFeatures, made: CandidateEstimate, share: float
) -> tuple[float, float]:
    """Return the seconds and joules that `share` of such requests keep within."""
    tokens, option, count = made.tokens, made.candidate.option, features.sequences
    load = made.place.running + count - 1
    out = tokens.length.find_quantile(share ** (1.0 / count), tokens.low, tokens.high)
    seconds = max(COST_FLOOR, option.seconds.evaluate_form(tokens.longest_in, out, load))
    seconds += _queue_seconds(seconds, made.place)
    each = out
    if count > 1:
        spread = find_normal_quantile(share) * tokens.compute_moments().deviation
        each = min(tokens.high, tokens.each_out + spread / math.sqrt(count))
    return seconds, max(COST_FLOOR, count * option.joules.evaluate_form(tokens.each_in, each, load))


def move_estimate(made: CandidateEstimate, reference_load: float | None) -> list[CandidateEstimate]:
    """Return the estimate at each of its places, the chosen one first, then in their order."""
    found = [made]
    for place, there in zip(made.candidate.places, made.places, strict=False):
        if place is not made.place:
            joules = there.predicted_joules
            reference = joules if reference_load is None else made.reference_joules
            found.append(
                made._replace(
                    place=place,
                    seconds=there.predicted_seconds,
                    joules=joules,
                    reference_joules=reference,
                )
            )
    return found


def _find_needed_tokens(features: RequestFeatures, tokens: TokensExpected) -> float:
    """Return the tokens that an answer has to find room for: its 90% quantile, or the limit."""
    asked = features.asked_tokens_out
    if features.ignore_eos:
        return tokens.high if asked is None else asked
    limit = math.inf if asked is None else float(min(asked, _LARGEST_LIMIT))
    return tokens.length.find_quantile(P90, float(max(1, features.min_tokens)), limit)


def _predict(
    features: RequestFeatures,
    candidate: RoutingCandidate,
    tokens: TokensExpected,
    weights: MetricWeights,
    reference_load: float | None,
) -> CandidateEstimate:
    option, running = candidate.option, candidate.running
    places = candidate.places or (CandidatePlace("", _HERE, running, candidate.queued),)
    raw: list[tuple[float, float]] = []
    settled: list[tuple[float, float]] = []
    predicted: list[PlacePrediction] = []
    for place in places:
        seconds, joules = _predict_place(features, candidate, tokens, place)
        raw.append((seconds, joules))
        # Floored, and with what is to wait for.
        seconds, joules = max(seconds, COST_FLOOR), max(joules, COST_FLOOR)
        if place.queued:
            seconds += _queue_seconds(seconds, place)
        settled.append((seconds, joules))
        predicted.append(PlacePrediction(place.backend, place.why, place.running, seconds, joules))
    at = 0 if len(places) == 1 else _choose_place(settled, weights)
    place, (seconds, joules) = places[at], raw[at]
    floored = seconds < COST_FLOOR or joules < COST_FLOOR
    reference = joules
    if reference_load is not None and reference_load != place.running:
        reference = _joules(features, option.joules, tokens, reference_load, 0)
    seconds, joules = settled[at]
    return CandidateEstimate(
        candidate, tokens, place, seconds, joules, max(reference, COST_FLOOR), floored,
        tuple(predicted),
    )  # fmt: skip


def _predict_place(
    features: RequestFeatures,
    candidate: RoutingCandidate,
    tokens: TokensExpected,
    place: CandidatePlace,
) -> tuple[float, float]:
    """Return raw seconds, without the queue, and joules of the request at one place."""
    option, count = candidate.option, features.sequences
    load = place.running + count - 1
    cached = place.cached_tokens
    longest_in = max(0.0, tokens.longest_in - cached) if cached else tokens.longest_in
    if count == 1:
        seconds = expect_cost(option.seconds, longest_in, tokens, load)
    else:
        # Blom's approximation of the expected longest of k.
        share = (count - 0.375) / (count + 0.25)
        out = max(tokens.each_out, tokens.length.find_quantile(share, tokens.low, tokens.high))
        seconds = option.seconds.evaluate_form(longest_in, out, load)
    return seconds, _joules(features, option.joules, tokens, place.running, cached)


def _joules(
    features: RequestFeatures,
    cost: CostFunction,
    tokens: TokensExpected,
    running: float,
    cached: int,
) -> float:
    count = features.sequences
    each_in = max(0.0, tokens.each_in - cached) if cached else tokens.each_in
    return count * expect_cost(cost, each_in, tokens, running + count - 1)


def expect_cost(
    cost: CostFunction, tokens_in: float, tokens: TokensExpected, running: float
) -> float:
    """Return E[cost] over one answer's length; exact, as no form is more than quadratic in it."""
    mean = tokens.each_out
    if cost.is_linear:
        return cost.evaluate_form(tokens_in, mean, running)
    spread = tokens.compute_moments().deviation
    low = cost.evaluate_form(tokens_in, mean - spread, running)
    return (low + cost.evaluate_form(tokens_in, mean + spread, running)) / 2.0


def _choose_place(settled: list[tuple[float, float]], weights: MetricWeights) -> int:
    """Return the place with the lowest w_energy log E + w_time log T; ties to the first."""
    best, best_score = 0, math.inf
    for at, (seconds, joules) in enumerate(settled):
        score = weights.energy * math.log10(joules)
        score += weights.time * math.log10(seconds)
        if score < best_score - 1e-12:
            best, best_score = at, score
    return best


def _queue_seconds(seconds: float, place: CandidatePlace) -> float:
    """Return what is to wait for: those ahead like this one, leaving as evenly as they came."""
    return seconds * place.queued / max(1, place.running) if place.queued else 0.0
