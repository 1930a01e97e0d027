"""Savings of the treatment against the baseline, with intervals over pairs of blocks.

Joules include what no request answers for: a router that spreads pays for idle servers. A ratio is
sum over sum within an arm; its comparison between arms, ln(treatment) - ln(baseline), has a
jackknife interval that leaves out one pair of neighbouring blocks at a time (Shao and Tu, 1995),
with Student's t and one less degree of freedom than there are pairs. Pairs, because each holds one
block of either arm: what drifts over hours cancels.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from calibration.savings.arms import ArmBlock
from gateway.scheduling.switchback import BASELINE, TREATMENT

LEAST_PAIRS = 6
MOST_ESTIMATED = 0.1
"""Of an arm's request joules; beyond it a comparison of joules would be one of predictions."""

Totals = Mapping[str, float]
Figure = tuple[str, str, Callable[[Totals], float], Callable[[Totals], float]]


def _joules(total: Totals) -> float:
    return sum(total.get(f"joules.{kind}", 0.0) for kind in ("request", "idle", "other"))


def _thousands(total: Totals) -> float:
    return total.get("tokens.completion", 0.0) / 1000.0


def _requests(total: Totals) -> float:
    return total.get("requests", 0.0)


def _of(name: str) -> Callable[[Totals], float]:
    return lambda total: total.get(name, 0.0)


FIGURES: Sequence[Figure] = (
    ("joules_per_1000_tokens", "J, idle and other included", _joules, _thousands),
    ("joules_per_answer", "J, idle and other included", _joules, _requests),
    ("request_joules_per_1000_tokens", "J, of requests alone", _of("joules.request"), _thousands),
    ("request_joules_per_answer", "J, of requests alone", _of("joules.request"), _requests),
    ("seconds_per_answer", "s", _of("seconds"), _requests),
    ("tokens_per_answer", "generated", _of("tokens.completion"), _requests),
    ("accuracy", "mean of the profile's, of the models that answered", _of("accuracy"), _requests),
)
"""Name, unit, numerator, denominator. The first two say whether anything was saved."""


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """One figure in both arms; `change` is treatment over baseline, less 1, with its interval.

    `low` and `high` are None where no interval can be given.
    """

    name: str
    unit: str
    baseline: float
    treatment: float
    low: float | None
    high: float | None

    @property
    def change(self) -> float:
        """Treatment over baseline, less 1."""
        return self.treatment / self.baseline - 1.0

    @property
    def verdict(self) -> str:
        """What the data can tell: less, more, or nothing."""
        if self.low is None or self.high is None:
            return "too few blocks to tell"
        if self.high < 0.0:
            return "less"
        return "more" if self.low > 0.0 else "no difference that this much data can tell"


def pair_up(blocks: Sequence[ArmBlock]) -> list[tuple[Totals, Totals]]:
    """Return (baseline, treatment) of each pair of blocks that both served something."""
    pairs: dict[int, dict[str, Totals]] = defaultdict(dict)
    for one in blocks:
        if one.added.get("requests", 0.0) > 0.0:
            pairs[one.number // 2][one.arm] = one.added
    return [
        (pair[BASELINE], pair[TREATMENT])
        for _, pair in sorted(pairs.items())
        if len(pair) == 2  # noqa: PLR2004 - one of each arm
    ]


def find_estimated_share(pairs: Sequence[tuple[Totals, Totals]]) -> float:
    """Return the larger of the arms' shares of request joules that no meter measured."""
    shares = [0.0]
    for arm in range(2):
        spent = sum(_of("joules.request")(pair[arm]) for pair in pairs)
        if spent > 0.0:
            shares.append(sum(_of("estimated")(pair[arm]) for pair in pairs) / spent)
    return max(shares)


def compare(pairs: Sequence[tuple[Totals, Totals]]) -> list[ArmComparison]:
    """Compare every figure that both arms have."""
    found = []
    for name, unit, numerator, denominator in FIGURES:
        table = np.array(
            [[(numerator(arm), denominator(arm)) for arm in pair] for pair in pairs]
        ).reshape(-1, 2, 2)
        total = table.sum(axis=0)
        if (total <= 0.0).any():
            continue
        baseline, treatment = total[:, 0] / total[:, 1]
        low, high = _interval(table)
        found.append(ArmComparison(name, unit, float(baseline), float(treatment), low, high))
    return found


def _interval(table: np.ndarray) -> tuple[float | None, float | None]:
    """Return the 95% interval of treatment over baseline, less 1."""
    count = len(table)
    rest = table.sum(axis=0) - table  # without one pair at a time
    if count < LEAST_PAIRS or (rest <= 0.0).any():
        return None, None
    total = table.sum(axis=0)
    whole = float(np.log(total[1, 0] / total[1, 1]) - np.log(total[0, 0] / total[0, 1]))
    logs = np.log(rest[:, 1, 0] / rest[:, 1, 1]) - np.log(rest[:, 0, 0] / rest[:, 0, 1])
    error = float(np.sqrt((count - 1.0) / count * ((logs - logs.mean()) ** 2).sum()))
    half = float(stdtrit(count - 1.0, 0.975)) * error
    return float(np.expm1(whole - half)), float(np.expm1(whole + half))
