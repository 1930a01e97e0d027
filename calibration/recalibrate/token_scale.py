"""The model's own prompt tokens, per token counted and per digit or punctuation mark, from sums.

    i = ratio e + per_dense_char d

Least squares through the origin (the profile has no constant), errors clustered by blocks of time
(CR1) with Student's t. Where prompts do not tell the two apart, be it that digits and marks are the
same share of each or that there are none, `per_dense_char` stays the live profile's, and the ratio
is what it leaves: sum of i - per_dense_char d over sum of e.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from calibration.arrays import Floats
from calibration.recalibrate import gates
from calibration.recalibrate.gates import GateRefusal
from calibration.recalibrate.holdout import HoldoutComparison, compare_on_holdout
from calibration.recalibrate.limits import GateLimits
from calibration.recalibrate.moments import ClusterMoments
from calibration.recalibrate.solved import SingularMoments, compute_interval_factor
from calibration.recalibrate.sums import SumBlock
from gateway.profile import TokenRatio

_COUNTED, _DENSE = 1, 2
"""Places among the columns, which are 1, e and d."""


@dataclass(frozen=True, slots=True)
class RefittedTokenScale:
    """Both factors with half their 95% intervals, and what they are worth.

    `dense_kept`: `per_dense_char` is the live profile's. `mean` is the mean prompt as (1, e, d),
    `dense_sd` the deviation of d; `influence` is by what share one scrape moves the mean prompt.
    """

    ratio: float
    per_dense_char: float
    ratio_half: float
    dense_half: float
    dense_kept: bool
    covariance: Floats
    mean: Floats
    dense_sd: float
    blocks: int
    block_seconds: float
    influence: float
    holdout: HoldoutComparison

    def predict_tokens(self, columns: Floats) -> tuple[float, float]:
        """Return the model's tokens of a prompt (1, e, d), and half their 95% interval."""
        value = self.ratio * columns[_COUNTED] + self.per_dense_char * columns[_DENSE]
        variance = max(0.0, float(columns @ self.covariance @ columns))
        return float(value), compute_interval_factor(self.blocks - 1) * variance**0.5


def refit_token_scale(
    block: SumBlock, live: TokenRatio, limits: GateLimits, block_seconds: float
) -> RefittedTokenScale:
    """Refit both from a block of the prompt basis. Raises SingularMoments."""
    whole = _build_moments(block.group_by_time(block_seconds))
    before = np.array([0.0, live.ratio, live.per_dense_char])

    def fit_both(part: ClusterMoments) -> Floats:
        condition = _find_condition(part)
        if condition > limits.max_condition:
            raise SingularMoments(f"condition number {condition:.3g}")
        total = part.xx.sum(axis=0)[1:, 1:]
        return np.concatenate([[0.0], np.linalg.solve(total, part.xy.sum(axis=0)[1:])])

    def fit_ratio(part: ClusterMoments) -> Floats:
        counted, dense = part.xx.sum(axis=0)[0, 1:]
        left = part.xy[:, 0].sum() - live.per_dense_char * dense
        return np.array([0.0, left / counted, live.per_dense_char])

    try:
        found, kept = fit_both(whole), False
        held = compare_on_holdout(whole, before, found, fit_both)
    except SingularMoments:
        found, kept = fit_ratio(whole), True
        held = compare_on_holdout(whole, before, found, fit_ratio)
    covariance = _estimate_covariance(whole, found, kept=kept)
    reach = compute_interval_factor(len(whole.xx) - 1) * np.sqrt(np.diag(covariance))
    mean = whole.column_means
    left = _build_moments(block).subtract_prediction(found).xy[:, 0]
    return RefittedTokenScale(
        ratio=float(found[_COUNTED]),
        per_dense_char=float(found[_DENSE]),
        ratio_half=float(reach[_COUNTED]),
        dense_half=float(reach[_DENSE]),
        dense_kept=kept,
        covariance=covariance,
        mean=mean,
        dense_sd=float(whole.standard_deviations[_DENSE]),
        blocks=len(whole.xx),
        block_seconds=block_seconds,
        influence=float(np.abs(left).max()) / block.sum_term("i"),
        holdout=held,
    )


def check_token_scale(
    found: RefittedTokenScale, live: TokenRatio, limits: GateLimits
) -> Iterator[GateRefusal]:
    """Ask the gates of a cost, as far as they have a meaning here."""
    yield from gates.check_block_count(found.blocks, found.block_seconds, limits)
    more = found.mean + np.array([0.0, 0.0, found.dense_sd])
    for columns in (found.mean, more):
        value, half = found.predict_tokens(columns)
        if found.ratio <= 0.0 or value <= 0.0:
            text = f"a prompt of {columns[_COUNTED]:.0f} tokens would have {value:.3g} of the model"
            yield GateRefusal("signs", text, value, 0.0)
            return
        yield from gates.check_interval(value, half, limits)
    yield from gates.check_influence(found.influence, limits)
    before = live.ratio * found.mean[_COUNTED] + live.per_dense_char * found.mean[_DENSE]
    yield from gates.check_change(found.predict_tokens(found.mean)[0], float(before), limits)
    yield from gates.check_gain(found.holdout, limits)


def _build_moments(block: SumBlock) -> ClusterMoments:
    """Return the cross products of 1, e and d, with i for y."""
    terms = (("n", "e", "d"), ("e", "e2", "ed"), ("d", "ed", "d2"))
    square = [[block.get_term(term) for term in row] for row in terms]
    target = np.stack([block.get_term(term) for term in ("i", "ei", "di")]).T
    return ClusterMoments(
        np.array(square).transpose(2, 0, 1), target, block.get_term("i2"), np.zeros_like(target)
    )


def _find_condition(whole: ClusterMoments) -> float:
    """Return the condition number of e and d, each scaled to unit length."""
    total = whole.xx.sum(axis=0)
    if total[_DENSE, _DENSE] <= 0.0:
        return float("inf")
    cosine = total[_COUNTED, _DENSE] / np.sqrt(total[_COUNTED, _COUNTED] * total[_DENSE, _DENSE])
    return float(np.sqrt((1.0 + cosine) / (1.0 - cosine))) if cosine < 1.0 else float("inf")


def _estimate_covariance(whole: ClusterMoments, found: Floats, *, kept: bool) -> Floats:
    """Return that of (0, ratio, per_dense_char), from the blocks' scores."""
    left = whole.subtract_prediction(found).xy
    count = len(left)
    covariance = np.zeros((3, 3))
    if kept:
        scores = left[:, :1] / whole.xx[:, 0, _COUNTED].sum()
        covariance[_COUNTED, _COUNTED] = float((scores**2).sum())
    else:
        bread = np.linalg.inv(whole.xx.sum(axis=0)[1:, 1:])
        scores = left[:, 1:] @ bread
        covariance[1:, 1:] = scores.T @ scores
    return covariance * count / max(1.0, count - 1.0)
