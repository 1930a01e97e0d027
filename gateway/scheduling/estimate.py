"""What one request would cost on one candidate: tokens, seconds and joules, at each place.

Rules of this file:

- Costs are expected values over the distribution of answer lengths, never costs of an expected
  length cut afterwards; a hard bound is judged at a quantile, because an expected value breaks
  half of the promises.
- Each place is predicted at its own load (what a meter will say); models are compared by their
  joules at one reference load, and by their seconds where the request would really go.
- Tokens that a place's prefix cache is expected to hold are not charged there. Hard bounds do not
  count on them: a cache drops what it likes.
- k answers cost k times the joules and the seconds of the longest, at a load of k - 1 more.
"""

import math
from typing import NamedTuple

from gateway.scheduling.answer_length import AnswerLength, find_normal_quantile
from gateway.scheduling.candidate import CandidatePlace, DeploymentOption, RoutingCandidate
from gateway.scheduling.cost import COST_FLOOR, CostFunction
from gateway.scheduling.decision import ExcludedCandidate, MetricWeights, PlacePrediction
from gateway.scheduling.features import RequestFeatures
from gateway.scheduling.tuple_maker import tuple_maker

P90 = 0.9
_Z90 = find_normal_quantile(P90)
PROFILE, LIMIT = "profile", "limit"
"""Sources of a length: the profile's own distribution; the limit, where answers run to it."""
_HERE = "only"

_LARGEST_LIMIT = 1 << 53
"""No answer is longer, and every integer up to it is a float."""


class TokensExpected(NamedTuple):
    """Tokens of a request on one candidate: of all sequences, and of a mean one by itself.

    `low` and `high` are the clamp of one answer, `each_p90` its 90% quantile, and `deviation` its
    standard deviation, 0 where no cost and no second sequence asks for it.
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
    each_p90: float
    deviation: float


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


_make_tokens = tuple_maker(TokensExpected)
_make_estimate = tuple_maker(CandidateEstimate)
_make_prediction = tuple_maker(PlacePrediction)


def estimate_candidate(
    features: RequestFeatures,
    candidate: RoutingCandidate,
    weights: MetricWeights,
    reference_load: float | None,
    excluded: list[ExcludedCandidate],
) -> CandidateEstimate | None:
    """Predict one candidate, or say in `excluded` why it cannot serve."""
    option = candidate.option
    if not features.needs <= option.capabilities:
        lacking = ", ".join(sorted(features.needs - option.capabilities))
        reason = f"capability: does not offer {lacking}"
        excluded.append(ExcludedCandidate(option.model, option.deployment, "capability", reason))
        return None
    tokens = expect_tokens(features, candidate)
    # An answer that ends before its limit ends before the context does.
    if not tokens.low < tokens.each_p90 < tokens.high and not features.always_fits:
        # vLLM takes min(context - prompt, limit): a large limit alone shuts nobody out.
        needed_out = _find_needed_tokens(features, tokens)
        if tokens.longest_in + needed_out > option.context:
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
    option, learnt, prompts = candidate.option, candidate.learnt, features.prompts
    total = candidate.tokens_in or features.scale(candidate.scale or option.scale)
    longest = total if prompts == 1 else max(1.0, total * features.longest)
    kept = features.truncate_tokens
    if kept is not None:
        # -1: vLLM cuts a prompt to the context, and leaves one token for the answer.
        kept = kept if kept > 0 else option.context - 1
        longest = min(longest, kept)
        total = min(total, kept * prompts)
    each_in = total / prompts
    if learnt is not None:
        length = learnt.length
    else:
        length = candidate.base or option.output.describe(each_in)
    asked, room = features.asked_tokens_out, option.context - longest
    high = float(max(1, room if asked is None else min(asked, room)))
    low = min(float(features.min_tokens), high) if features.min_tokens > 1 else 1.0
    if features.ignore_eos:
        low, source = high, LIMIT
    else:
        source = PROFILE if learnt is None else learnt.source
    each_out = length.compute_mean(low, high)
    count = features.answers * prompts
    p90 = each_p90 = length.find_at(_Z90, low, high)
    deviation = 0.0
    if count > 1 or not option.is_linear:
        deviation = length.compute_moments(low, high).deviation
    if count > 1:
        spread = _Z90 * deviation * math.sqrt(count)
        p90 = min(count * high, count * each_out + spread)
    return _make_tokens((
        total, each_out * count, max(1, round(p90)), length, source, each_in, longest,
        each_out, low, high, each_p90, deviation,
    ))  # fmt: skip


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
        spread = find_normal_quantile(share) * tokens.deviation
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
    option = candidate.option
    places = candidate.places or (CandidatePlace("", _HERE, candidate.running, candidate.queued),)
    # Nearly always: one answer to one prompt, and costs that a mean length has the mean of.
    plain = option.is_linear and features.answers == features.prompts == 1
    each_in, each_out = tokens.each_in, tokens.each_out
    predicted: list[PlacePrediction] = []
    floored: list[int] = []
    for place in places:
        backend, why, running, queued, cached = place
        if cached:
            # The last one is always computed.
            cached = min(cached, max(0, int(each_in) - 1))
        if plain:
            seconds = option.seconds.evaluate_form(each_in, each_out, running, cached)
            joules = option.joules.evaluate_form(each_in, each_out, running, cached)
        else:
            seconds, joules = _predict_place(features, option, tokens, running, cached)
        if seconds < COST_FLOOR or joules < COST_FLOOR:
            floored.append(len(predicted))
            seconds, joules = max(seconds, COST_FLOOR), max(joules, COST_FLOOR)
        if queued:
            seconds += _queue_seconds(seconds, place)
        predicted.append(_make_prediction((backend, why, running, seconds, joules, cached)))
    at = 0 if len(places) == 1 else _choose_place(predicted, weights)
    _, _, running, seconds, joules, cached = predicted[at]
    reference = joules
    if reference_load is not None and reference_load != running:
        reference = _joules(features, option.joules, tokens, reference_load, cached)
        reference = max(reference, COST_FLOOR)
    return _make_estimate((
        candidate, tokens, places[at], seconds, joules, reference, at in floored, tuple(predicted)
    ))  # fmt: skip


def _predict_place(
    features: RequestFeatures,
    option: DeploymentOption,
    tokens: TokensExpected,
    running: int,
    cached: int,
) -> tuple[float, float]:
    """Return raw seconds, without the queue, and joules of the request at one place."""
    count = features.answers * features.prompts
    if count == 1:
        seconds = expect_cost(option.seconds, tokens.longest_in, tokens, running, cached)
        return seconds, expect_cost(option.joules, tokens.each_in, tokens, running, cached)
    # Blom's approximation of the expected longest of k.
    share = (count - 0.375) / (count + 0.25)
    out = max(tokens.each_out, tokens.length.find_quantile(share, tokens.low, tokens.high))
    load = running + count - 1
    seconds = option.seconds.evaluate_form(tokens.longest_in, out, load, cached)
    return seconds, _joules(features, option.joules, tokens, running, cached)


def _joules(
    features: RequestFeatures,
    cost: CostFunction,
    tokens: TokensExpected,
    running: float,
    cached: int,
) -> float:
    count = features.answers * features.prompts
    return count * expect_cost(cost, tokens.each_in, tokens, running + count - 1, cached)


def expect_cost(
    cost: CostFunction,
    tokens_in: float,
    tokens: TokensExpected,
    running: float,
    cached: int = 0,
) -> float:
    """Return E[cost] over one answer's length; exact, as no form is more than quadratic in it."""
    mean = tokens.each_out
    if cost.is_linear:
        return cost.evaluate_form(tokens_in, mean, running, cached)
    spread = tokens.deviation
    low = cost.evaluate_form(tokens_in, mean - spread, running, cached)
    return (low + cost.evaluate_form(tokens_in, mean + spread, running, cached)) / 2.0


def _choose_place(predicted: list[PlacePrediction], weights: MetricWeights) -> int:
    """Return the place with the lowest w_energy log E + w_time log T; ties to the first."""
    best, best_score = 0, math.inf
    for at, (_, _, _, seconds, joules, _) in enumerate(predicted):
        score = weights.energy * math.log10(joules)
        score += weights.time * math.log10(seconds)
        if score < best_score - 1e-12:
            best, best_score = at, score
    return best


def _queue_seconds(seconds: float, place: CandidatePlace) -> float:
    """Return what is to wait for: those ahead like this one, leaving as evenly as they came."""
    return seconds * place.queued / max(1, place.running) if place.queued else 0.0
