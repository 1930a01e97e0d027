"""A /metrics page of our own: OpenMetrics for whoever asks for it, and never a sample of NaN.

A series that is not a number is one that is not known; it spoils every sum, rate and alert that it
comes into, and says nothing that its absence does not.
"""

from collections.abc import Iterable, Iterator
from math import isnan
from typing import Any, Protocol

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
