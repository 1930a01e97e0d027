"""Whether judgements say that a model is no longer right as often as is predicted.

Rules of this file:

- Two-sided CUSUM (Page, "Continuous inspection schemes", 1954) of the likelihood ratio of a score
  where the log odds of being right are `_SHIFT` more, or less, than predicted.
- What the prediction's own uncertainty explains is no miss: it is moved by its deviation first.
- Where predictions are true, a side is doubted once in e^`_ALARM` = 22,000 judgements at most
  (Lorden, "Procedures for reacting to a change in distribution", 1971).
"""

import math
from typing import Final, NamedTuple

_SHIFT: Final = 1.5
_ALARM: Final = 10.0
_MOST_EXPECTED: Final = 0.95
WATCH_FIELDS: Final = 6
"""Evidence, judgements and sum of errors since it began: of better, then of worse."""


class NoticedChange(NamedTuple):
    """The judgements that tell of a change, and their mean score less what was predicted."""

    judgements: float
    error: float


def watch_judgement(
    found: list[float], expected: float, deviation: float, score: float
) -> NoticedChange | None:
    """Add a score from 0 to 1 to the `WATCH_FIELDS` of `found`; tell whether that is a change."""
    for side, sign in ((0, 1.0), (3, -1.0)):
        reached = found[side] + _weigh_change(expected + sign * deviation, sign, score)
        if reached <= 0.0:
            found[side : side + 3] = [0.0, 0.0, 0.0]
            continue
        count, error = found[side + 1] + 1.0, found[side + 2] + score - expected
        found[side : side + 3] = [reached, count, error]
        if reached > _ALARM:
            return NoticedChange(count, error / count)
    return None


def _weigh_change(expected: float, sign: float, score: float) -> float:
    """Return the logarithm of how much likelier a score is where odds moved by `_SHIFT`."""
    before = min(_MOST_EXPECTED, max(1.0 - _MOST_EXPECTED, expected))
    after = 1.0 / (1.0 + (1.0 / before - 1.0) * math.exp(-sign * _SHIFT))
    right, wrong = math.log(after / before), math.log((1.0 - after) / (1.0 - before))
    return score * right + (1.0 - score) * wrong
