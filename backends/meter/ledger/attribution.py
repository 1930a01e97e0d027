"""How one interval's energy is divided: prefill first, the rest to decode (DESIGN section 5).

PURE: no clock, no I/O.
"""

from collections.abc import Collection
from math import fsum

from backends.meter.ledger.apportion import Prefill, Sharer, share
from backends.meter.ledger.decode_weights import weigh_tokens
from backends.meter.ledger.intervals import Span
from backends.meter.ledger.request import Tracked
from backends.meter.ledger.unreported import Unreported


def divide(
    span: Span, requests: list[Tracked], unreported: Collection[Unreported], now_us: int
) -> bool:
    """Give a span's energy to those that had tokens in it; False if nobody had (it is idle).

    `requests` are those in flight during a part of it at least.
    """
    start_us, end_us, microjoules, _ = span
    width_us = end_us - start_us
    prefills: list[Prefill] = []
    generated = [
        request.rate * width_us
        if request.steady_from_us <= start_us and end_us <= request.steady_to_us
        else request.tokens(start_us, end_us, now_us, prefills)
        for request in requests
    ]
    sharers: list[Sharer] = [*requests, *unreported]
    generated += [other.tokens(start_us, end_us, prefills) for other in unreported]
    decoding = len(generated) - generated.count(0.0)
    if not prefills and not decoding:
        return False
    _meet(requests, sharers, generated, decoding, prefills)
    prefilling = 0
    if prefills:
        owners, energies, tokens = zip(*prefills, strict=True)
        needed = fsum(energies)
        prefilling = min(int(needed), microjoules) if decoding else microjoules
        share(prefilling, owners, energies if needed else tokens)
    if decoding:
        share(microjoules - prefilling, sharers, _weighed(span, requests, generated))
    return True


def _weighed(span: Span, requests: list[Tracked], generated: list[float]) -> list[float]:
    """Return tokens times their weights; those that nobody reported weigh like their mean."""
    if generated.count(0.0) == len(generated) - 1:
        return generated
    weights, coarse = weigh_tokens(span, requests, generated)
    if coarse:
        for request, tokens in zip(requests, generated, strict=False):
            request.coarse |= tokens > 0.0
    if weights is None:
        return generated
    mean = fsum(weights.values()) / len(weights)
    return [tokens * weights.get(n, mean) for n, tokens in enumerate(generated)]


def _meet(
    active: list[Tracked],
    sharers: list[Sharer],
    generated: list[float],
    decoding: int,
    prefills: list[Prefill],
) -> None:
    """Note who had company."""
    only: Sharer | None = None
    if decoding <= 1:
        users = {id(owner): owner for owner, _, _ in prefills}
        users |= {id(who): who for who, n in zip(sharers, generated, strict=True) if n}
        if len(users) == 1:
            (only,) = users.values()
    for request in active:
        if request is not only:
            request.alone = False
