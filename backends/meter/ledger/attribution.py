"""How one interval's energy is divided: prefill first, the rest to decode.

PURE: no clock, no I/O.
"""

from collections.abc import Collection
from math import fsum

from backends.meter.ledger.apportion import PrefillShare, Recipient, apportion_microjoules
from backends.meter.ledger.decode_weights import weigh_tokens
from backends.meter.ledger.intervals import EnergyInterval
from backends.meter.ledger.request import RequestTimeline
from backends.meter.ledger.unreported import UnattributedTokens


def attribute_interval(
    span: EnergyInterval,
    requests: list[RequestTimeline],
    unreported: Collection[UnattributedTokens],
    now_us: int,
) -> bool:
    """Attribute a span's energy to the requests that had tokens in it; False if none had (idle).

    `requests` are those in flight during a part of it at least.
    """
    start_us, end_us, microjoules, _ = span
    width_us = end_us - start_us
    prefills: list[PrefillShare] = []
    generated = [
        request.tokens_per_us * width_us
        if request.steady_from_us <= start_us and end_us <= request.steady_to_us
        else request.count_tokens_between(start_us, end_us, now_us, prefills)
        for request in requests
    ]
    sharers: list[Recipient] = [*requests, *unreported]
    generated += [other.count_tokens_between(start_us, end_us, prefills) for other in unreported]
    decoding = len(generated) - generated.count(0.0)
    if not prefills and not decoding:
        return False
    _mark_shared(requests, sharers, generated, decoding, prefills)
    prefilling = 0
    if prefills:
        owners, energies, tokens = zip(*prefills, strict=True)
        needed = fsum(energies)
        prefilling = min(int(needed), microjoules) if decoding else microjoules
        apportion_microjoules(prefilling, owners, energies if needed else tokens)
    if decoding:
        apportion_microjoules(
            microjoules - prefilling, sharers, _weighed(span, requests, generated)
        )
    return True


def _weighed(
    span: EnergyInterval, requests: list[RequestTimeline], generated: list[float]
) -> list[float]:
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


def _mark_shared(
    active: list[RequestTimeline],
    sharers: list[Recipient],
    generated: list[float],
    decoding: int,
    prefills: list[PrefillShare],
) -> None:
    """Note who had company."""
    only: Recipient | None = None
    if decoding <= 1:
        users = {id(owner): owner for owner, _, _ in prefills}
        users |= {id(who): who for who, n in zip(sharers, generated, strict=True) if n}
        if len(users) == 1:
            (only,) = users.values()
    for request in active:
        if request is not only:
            request.used_alone = False
