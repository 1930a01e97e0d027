"""An amount of whole microjoules divided by weights, exactly.

PURE: the shares depend on the weights alone, never on their order.
"""

from collections.abc import Sequence
from math import fsum
from typing import Protocol

RequestKey = tuple[str, int]
"""(gateway, its number for the request)"""


class Recipient(Protocol):
    """Who may get a share."""

    key: RequestKey
    microjoules: int


PrefillShare = tuple[Recipient, float, float]
"""Whose, microjoules that profiling says it takes, prompt tokens."""


def apportion_microjoules(
    microjoules: int, sharers: Sequence[Recipient], weights: Sequence[float]
) -> None:
    """Give each its part of the amount; weights are not negative and not all 0.

    Each share is rounded down, and what is left over goes to the largest weight (of equals: to the
    smallest key).
    """
    scale = microjoules / fsum(weights)
    shares = [int(weight * scale) for weight in weights]
    left = microjoules - sum(shares)
    if left:
        largest = max(weights)
        if weights.count(largest) == 1:
            place = weights.index(largest)
        else:
            equals = [n for n, weight in enumerate(weights) if weight == largest]
            place = min(equals, key=lambda n: sharers[n].key)
        shares[place] += left
    for sharer, part in zip(sharers, shares, strict=True):
        sharer.microjoules += part
