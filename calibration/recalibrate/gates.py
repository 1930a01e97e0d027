"""What a refit must pass before it may replace the live profile; each refusal with its number.

Gates, in the order in which they are checked:

    faults      sums that no requests can have given (calibration.recalibrate.sums says which)
    requests    at least so many; with too few, the live cost is kept
    scrapes     at least so many scrape intervals with requests in them: they are the clusters
    zero        lengths and costs that are not 0 throughout
    lengths     standard deviation over mean of prompt and answer lengths, at least
    condition   of the columns, scaled to unit length, at most
    signs       no negative marginal cost, and the mean request's cost is over 0
    interval    half the 95% interval over the prediction, at the mean request and one standard
                deviation longer in either length, at most
    influence   share by which one scrape alone moves the mean request's prediction, at most
    change      prediction of the mean request over the live profile's, from 1/3 to 3
    gain        share by which the RMSE in the window falls, at least (by default 0);
                below that the live profile's cost is kept
    cut         share of the answers that no limit truncated, at least (output line only)
    form        the live output is a line; a log-normal has none to compare, and stays
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from calibration.recalibrate.moments import ClusterMoments
from calibration.recalibrate.refit import CostRefit
from calibration.recalibrate.sums import PROMPT, TERMS, SumBlock

MIN_UNCUT_SHARE = 0.5
FEW, GAIN = "requests", "gain"
"""Gates that keep the live cost without refusing the model's other costs."""
_NONZERO_TERMS = {
    "e": "the gateway's own token counts of prompts",
    "i": "prompt lengths",
    "o": "answer lengths",
    "y": "costs",
}
"""What cannot be 0 in every request, by its term."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """The bounds; each is an option of the command."""

    min_requests: int = 100
    min_scrapes: int = 10
    min_spread: float = 0.05
    max_condition: float = 300.0
    max_interval: float = 0.25
    max_change: float = 3.0
    max_influence: float = 0.1
    min_gain: float = 0.0


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


NO_LINE = GateRefusal(
    "form", "the live profile's tokens out are log-normal, which no line over tokens in replaces"
)


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
    scrapes = len(block.clusters)
    if scrapes < limits.min_scrapes:
        text = f"{scrapes} with requests, at least {limits.min_scrapes} needed (--min-scrapes)"
        yield GateRefusal("scrapes", text, scrapes, limits.min_scrapes)
    nothing = [
        text
        for term, text in _NONZERO_TERMS.items()
        if term in TERMS[block.basis] and not block.sum_term(term)
    ]
    for what in nothing:
        yield GateRefusal("zero", f"{what} are 0 in all {block.n} requests")
    if nothing or block.basis == PROMPT:  # any length tells a ratio
        return
    for what, term in (("prompt", "i"), ("answer", "o")):
        moments = ClusterMoments.from_block(block, ("n",), term)
        mean = moments.mean_y
        spread = float(np.sqrt(max(0.0, moments.yy.sum() / moments.n - mean**2))) / mean
        if spread < limits.min_spread:
            text = (
                f"{what}s are all of about {mean:.0f} tokens (sd {spread:.2%} of the mean, at "
                f"least {limits.min_spread:.0%} needed: --min-spread), so what a token costs "
                "cannot be told"
            )
            yield GateRefusal("lengths", text, spread, limits.min_spread)


def check_refit(found: CostRefit, limits: GateLimits) -> Iterator[GateRefusal]:
    """Check a refitted cost."""
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
    if found.influence > limits.max_influence:
        text = (
            f"one scrape alone moves the mean request's prediction by {found.influence:.0%}, "
            f"{limits.max_influence:.0%} at most (--max-influence): did a server stand still?"
        )
        yield GateRefusal("influence", text, found.influence, limits.max_influence)
    yield from check_change(predicted, found.drift.predicted, limits)
    gain = 1.0 - found.solved.rmse / found.drift.rmse if found.drift.rmse > 0.0 else 0.0
    if gain < limits.min_gain:
        text = f"the RMSE falls by {gain:.1%}, at least {limits.min_gain:.0%} asked (--min-gain)"
        yield GateRefusal(GAIN, f"{text}: the live profile holds", gain, limits.min_gain)


def check_change(new: float, live: float, limits: GateLimits) -> Iterator[GateRefusal]:
    """Compare a new prediction of the mean request with the live one."""
    change = new / live if live > 0.0 else float("inf")
    if not 1.0 / limits.max_change <= change <= limits.max_change:
        text = (
            f"the mean request would be predicted {change:.3g} times what the live profile says "
            f"({live:.4g}), {1.0 / limits.max_change:.3g} to {limits.max_change:g} is allowed "
            "(--max-change)"
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
    mean_in, mean_out = float(found.mean[1]), float(found.mean[2])
    share = float(found.mean[4]) / mean_out  # of load, per token out
    for i, o in (
        (mean_in, mean_out),
        (mean_in + float(found.sd[1]), mean_out),
        (mean_in, mean_out + float(found.sd[2])),
    ):
        value, half = found.predict_cost(np.array([1.0, i, o, i * o, share * o]))
        yield half / value if value > 0.0 else float("inf")
