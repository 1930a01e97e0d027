"""What a refit must pass before it may replace the live profile; each refusal with its number.

Gates, in the order in which they are checked:

    faults      sums that no requests can have given (calibration.recalibrate.sums says which)
    requests    at least so many; with too few, a cost is left as it was
    blocks      at least so many blocks of time with requests in them: they are the clusters
    floored     share of the rows whose live prediction was floored, at most: they are left out
    missing     joules missing where requests are dear: of the predicted joules at most so much
    zero        lengths and costs that are not 0 throughout
    lengths     standard deviation over mean of prompt and answer lengths, at least
    condition   of the columns, scaled to unit length, at most
    signs       no negative marginal cost, and the mean request's cost is over 0
    interval    half the 95% interval over the prediction, at the mean request and one standard
                deviation longer in either length, at most
    influence   by how much one scrape alone moves the mean prediction, at most
    change      the mean request is predicted from 1/3 to 3 times what the live profile says, or
                a step of that size is taken; refused where most rows are beyond five times
    gain        on what it was not fitted to it predicts better by more than two standard errors,
                and the live profile is off by more than this share; else the live profile holds
    ordinary    share of the change that ordinary requests show, at least: a few odd ones are no
                reason; else the live profile holds
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from calibration.recalibrate.holdout import HoldoutComparison
from calibration.recalibrate.limits import GateLimits
from calibration.recalibrate.refit import CostRefit
from calibration.recalibrate.sums import SumBlock
from gateway.scheduling.regression_terms import COSTS, METERED, TERMS

FEW, GAIN, ORDINARY = "requests", "gain", "ordinary"
"""The gates that leave a cost as it was, and hold up nothing else."""
_NONZERO_TERMS = {
    "e": "the gateway's own token counts of prompts",
    "i": "prompt lengths",
    "o": "answer lengths",
    "y": "costs",
}
"""What cannot be 0 in every request, by its term."""
_MOST_WINSORISED = 0.5
_LEAST_ORDINARY = 0.3
_ALIKE = 1.25


@dataclass(frozen=True, slots=True)
class GateRefusal:
    """One gate that was not passed; `number` and `bound` are None where the text is all."""

    gate: str
    text: str
    number: float | None = None
    bound: float | None = None

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.gate}: {self.text}"


def check_block(block: SumBlock, limits: GateLimits) -> Iterator[GateRefusal]:
    """Check sums before any fit."""
    for fault in block.faults:
        yield GateRefusal(fault.gate, str(fault))
    if block.faults:
        return
    if block.n < limits.min_requests:
        text = f"{block.n}, at least {limits.min_requests} needed (--min-requests, --window)"
        yield GateRefusal(FEW, text, block.n, limits.min_requests)
        return
    nothing = [
        text
        for term, text in _NONZERO_TERMS.items()
        if term in TERMS[block.basis] and not block.sum_term(term)
    ]
    for what in nothing:
        yield GateRefusal("zero", f"{what} are 0 in all {block.n} requests")
    if nothing or block.basis != COSTS:  # any length tells a ratio
        return
    for what, term in (("prompt", "u"), ("answer", "o")):
        mean = block.sum_term(f"w{term}") / block.sum_term("w")
        square = block.sum_term(f"w{term}2") / block.sum_term("w")
        spread = float(np.sqrt(max(0.0, square - mean**2))) / mean if mean > 0.0 else 0.0
        if spread < limits.min_spread:
            text = (
                f"{what}s are all of about {mean:.0f} tokens (sd {spread:.2%} of the mean, at "
                f"least {limits.min_spread:.0%} needed: --min-spread), so what a token costs "
                "cannot be told"
            )
            yield GateRefusal("lengths", text, spread, limits.min_spread)


def check_rows(rows: SumBlock, limits: GateLimits) -> Iterator[GateRefusal]:
    """Look at how many rows had no weight."""
    share = rows.sum_term("floored") / rows.n if rows.n else 0.0
    if share > limits.max_missing:
        text = (
            f"{share:.0%} of the requests have a live prediction of nothing and so no weight, "
            f"{limits.max_missing:.0%} at most (--max-missing): profile the model (joulegate "
            "profile)"
        )
        yield GateRefusal("floored", text, share, limits.max_missing)


def check_metered(metered: SumBlock, limits: GateLimits) -> Iterator[GateRefusal]:
    """Look whether the joules that are missing are those of other requests than those measured.

    A meter that was away for an hour misses all alike, and that is no harm. Missing requests that
    were predicted to cost more, or took longer, than those measured are a choice, and what is
    fitted to the others is too low.
    """
    n, p, s, mn, mp, ms = (metered.sum_term(term) for term in TERMS[METERED])
    if not mn or mn == n or p <= 0.0 or mp <= 0.0:
        return
    share = 1.0 - mp / p
    apart = [
        (whole - part) / (n - mn) / (part / mn) for whole, part in ((p, mp), (s, ms)) if part > 0.0
    ]
    most = max(apart, key=lambda ratio: abs(np.log(max(ratio, 1e-9))), default=1.0)
    alike = 1.0 / _ALIKE <= most <= _ALIKE
    if share > limits.max_missing and not alike:
        text = (
            f"joules are missing for requests with {share:.0%} of the predicted joules, and those "
            f"cost {most:.2g} times what the measured ones did: at most {limits.max_missing:.0%} "
            "(--max-missing), or as many of every kind"
        )
        yield GateRefusal("missing", text, share, limits.max_missing)


def check_refit(found: CostRefit, limits: GateLimits) -> Iterator[GateRefusal]:
    """Look at a refitted cost."""
    yield from check_block_count(found.holdout.blocks, found.block_seconds, limits)
    if not found.kept_load and found.solved.condition > limits.max_condition:
        text = f"{found.solved.condition:.3g}, at most {limits.max_condition:g} (--max-condition)"
        yield GateRefusal("condition", text, found.solved.condition, limits.max_condition)
    if found.wrong_sign is not None:
        yield GateRefusal("signs", found.wrong_sign)
    predicted, _ = found.predict_cost(found.mean)
    if predicted <= 0.0:
        text = f"the mean request is predicted to cost {predicted:.3g}"
        yield GateRefusal("signs", text, predicted, 0.0)
        return
    widest = max(_compute_relative_intervals(found))
    if widest > limits.max_interval:
        text = f"predictions are known to {widest:.0%}, {limits.max_interval:.0%} at most"
        yield GateRefusal("interval", f"{text} (--max-interval)", widest, limits.max_interval)
    yield from check_influence(found.influence, limits)
    yield from _of_step(found)
    yield from _of_worth(found, limits)


def check_block_count(
    blocks: int, block_seconds: float, limits: GateLimits
) -> Iterator[GateRefusal]:
    """Ask for enough clusters."""
    if blocks < limits.min_blocks:
        text = (
            f"{blocks} of {block_seconds / 60.0:.3g} minutes with requests, at least "
            f"{limits.min_blocks} needed (--min-blocks, --block, --window)"
        )
        yield GateRefusal("blocks", text, blocks, limits.min_blocks)


def check_influence(influence: float, limits: GateLimits) -> Iterator[GateRefusal]:
    """Hold what one scrape alone does to the mean prediction."""
    if influence > limits.max_influence:
        text = (
            f"one scrape alone moves the mean prediction by {influence:.0%}, "
            f"{limits.max_influence:.0%} at most (--max-influence): did a server stand still?"
        )
        yield GateRefusal("influence", text, influence, limits.max_influence)


def _of_step(found: CostRefit) -> Iterator[GateRefusal]:
    """Refuse what no step of the largest size leads towards."""
    beyond = max(found.winsorised)
    if not np.isfinite(found.change) or found.change <= 0.0:
        text = "the live profile predicts nothing for the mean request"
        yield GateRefusal("change", text)
    elif beyond > _MOST_WINSORISED:
        text = (
            f"{beyond:.0%} of the requests cost over five times or under a fifth of what the live "
            f"profile says, {_MOST_WINSORISED:.0%} at most: is it this model's profile, and the "
            "meter's unit right? Profile it anew (joulegate profile), or replace the live one"
        )
        yield GateRefusal("change", text, beyond, _MOST_WINSORISED)


def _of_worth(found: CostRefit, limits: GateLimits) -> Iterator[GateRefusal]:
    """Ask what it is worth on requests that it was not fitted to."""
    held = found.holdout
    refused = list(check_gain(held, limits, found.attenuation))
    yield from refused
    if not refused and held.ordinary < _LEAST_ORDINARY:
        text = (
            f"ordinary requests show {max(0.0, held.ordinary):.0%} of the change, at least "
            f"{_LEAST_ORDINARY:.0%} asked: a few odd ones make the rest, and the live profile holds"
        )
        yield GateRefusal(ORDINARY, text, held.ordinary, _LEAST_ORDINARY)


def check_gain(
    held: HoldoutComparison, limits: GateLimits, attenuation: float = 0.0
) -> Iterator[GateRefusal]:
    """Ask whether the live profile is off by enough, and by more than chance and noise explain."""
    if not held.is_significant:
        text = (
            f"held out, squared relative errors fall by {held.gain:.2g} +- {held.error:.2g}, which "
            "may be chance: the live profile holds"
        )
        yield GateRefusal(GAIN, text, held.gain, 2.0 * held.error)
    elif held.live_error <= max(limits.min_gain, attenuation):
        blurred = f", and over {attenuation:.1%}, which the load's noisy reading may explain"
        text = (
            f"the live profile is off by {held.live_error:.1%} beyond the noise, over "
            f"{limits.min_gain:.0%} asked (--min-gain)"
            f"{blurred if attenuation > limits.min_gain else ''}: it holds"
        )
        yield GateRefusal(GAIN, text, held.live_error, limits.min_gain)


def check_change(new: float, live: float, limits: GateLimits) -> Iterator[GateRefusal]:
    """Hold a new mean against the live one."""
    change = new / live if live > 0.0 else float("inf")
    if not 1.0 / limits.max_change <= change <= limits.max_change:
        text = (
            f"the mean would be {change:.3g} times what the live profile says ({live:.4g}), "
            f"{1.0 / limits.max_change:.3g} to {limits.max_change:g} is allowed (--max-change)"
        )
        yield GateRefusal("change", text, change, limits.max_change)


def check_interval(value: float, half: float, limits: GateLimits) -> Iterator[GateRefusal]:
    """Compare half a 95% interval with its value."""
    width = half / value if value > 0.0 else float("inf")
    if width > limits.max_interval:
        text = f"known to {width:.0%}, {limits.max_interval:.0%} at most (--max-interval)"
        yield GateRefusal("interval", text, width, limits.max_interval)


def _compute_relative_intervals(found: CostRefit) -> Iterator[float]:
    """Yield half the interval over the prediction at the points that count."""
    _, uncached, mean_out, product, _, loaded = (float(value) for value in found.mean)
    extra_in, extra_out = float(found.sd[1]), float(found.sd[2])
    whole = product / mean_out  # prompt tokens, cached ones too, as an answer's token sees them
    for u, i, o in (
        (uncached, whole, mean_out),
        (uncached + extra_in, whole + extra_in, mean_out),
        (uncached, whole, mean_out + extra_out),
    ):
        row = np.array([1.0, u, o, i * o, o**2, loaded / mean_out * o])
        value, half = found.predict_cost(row)
        yield half / value if value > 0.0 else float("inf")
