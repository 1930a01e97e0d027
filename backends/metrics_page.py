"""A /metrics page of our own: OpenMetrics for whoever asks for it, and never a sample of NaN.

A series that is not a number is one that is not known; it spoils every sum, rate and alert that it
comes into, and says nothing that its absence does not.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from math import isnan
from typing import Any, Final, Protocol

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder


class _Collected(Protocol):
    def collect(self) -> Iterable[Metric]: ...


class _KnownSamples:
    """What a registry collects, without the samples that are not a number."""

    def __init__(self, registry: _Collected, *, strict: bool) -> None:
        self._registry = registry
        self._strict = strict

    def collect(self) -> Iterator[Metric]:
        """Return the families; one that has nothing known is left out whole."""
        for family in self._registry.collect():
            known = [sample for sample in family.samples if not isnan(sample.value)]
            # A sum of signed values only ever has values added, and is no counter in OpenMetrics.
            signed = (
                self._strict
                and family.type == "counter"
                and any(sample.value < 0.0 for sample in known)
            )
            if signed:
                shown = Metric(f"{family.name}_total", family.documentation, "unknown")
            elif len(known) != len(family.samples):
                shown = Metric(family.name, family.documentation, family.type, family.unit)
            else:
                yield family
                continue
            shown.samples = known
            if known:
                yield shown


def encode_metrics_page(registry: _Collected, accept: str) -> tuple[bytes, str]:
    """Return the page and its content type; `accept` is what the client says it can read."""
    encode, content_type = choose_encoder(accept)
    strict = content_type.startswith("application/openmetrics-text")
    shown: Any = _KnownSamples(registry, strict=strict)
    return encode(shown), content_type


_TURN_SECONDS: Final = 0.01
_MOST_SAMPLES: Final = 250
"""What is encoded without a look at the time: a millisecond or two."""
_END: Final = b"# EOF\n"


async def encode_metrics_in_turns(registry: _Collected, accept: str) -> tuple[bytes, str]:
    """Return the same page, made in turns with whatever else the event loop has to do.

    A page of 50 tenants, 6 presets and 5 models has 13,000 lines and takes some 200 ms.
    """
    encode, content_type = choose_encoder(accept)
    strict = content_type.startswith("application/openmetrics-text")
    pieces: list[bytes] = []
    began = time.perf_counter()
    for family in _KnownSamples(registry, strict=strict).collect():
        for piece in _encode_family(family, encode):
            pieces.append(piece)
            if time.perf_counter() - began > _TURN_SECONDS:
                await asyncio.sleep(0)
                began = time.perf_counter()
    if strict:
        pieces.append(_END)
    return b"".join(pieces), content_type


def _encode_family(family: Metric, encode: Callable[[Any], bytes]) -> Iterator[bytes]:
    """Encode a family part by part; what the first says of it the others do not repeat."""
    for start in range(0, len(family.samples), _MOST_SAMPLES):
        part = Metric(family.name, family.documentation, family.type, family.unit)
        part.samples = family.samples[start : start + _MOST_SAMPLES]
        piece = encode(_OneFamily(part)).removesuffix(_END)
        while start and piece.startswith((b"# HELP ", b"# TYPE ", b"# UNIT ")):
            piece = piece[piece.index(b"\n") + 1 :]
        yield piece


class _OneFamily:
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        """Return it."""
        return [self._family]
