"""NVIDIA's DCGM exporter, asked through Prometheus: where NVML is out of the meter's reach.

It is coarse: the exporter looks every 30 s unless told otherwise, and Prometheus scrapes no
sooner. A GPU may have several series (one for each MIG instance, pod or job that scrapes it), all
of the same counter: the highest is the newest.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from backends.install_hint import suggest_install
from backends.meter.sources.source import EnergyDevice, SourceError
from backends.prometheus_reply import PrometheusReplyError, PrometheusSample, parse_samples

SERIES: Final = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
_TIMEOUT_SECONDS: Final = 10.0
_FRESH_SECONDS: Final = 0.5
"""Readings of several devices this close to each other share one query."""
_BLANK: Final = 9.2e18
"""DCGM's values for "not known" lie above that."""


class DcgmSource:
    """GPUs of these UUIDs, or of these numbers (none: all of one host), at a Prometheus."""

    coarse = True

    def __init__(
        self,
        url: str,
        devices: Sequence[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kind = "dcgm"
        self._url = url.rstrip("/")
        self._asked = tuple(devices)
        self._clock = clock
        self._httpx: Any = None
        self._client: Any = None
        self._counters: dict[str, int] = {}
        self._asked_at = float("-inf")

    def open(self) -> tuple[EnergyDevice, ...]:
        """Find the GPUs. Raises SourceError; may be called again after one."""
        self.close()
        try:
            self._httpx = importlib.import_module("httpx")
        except ImportError:
            raise SourceError(f"DCGM needs `{suggest_install('meter')}`") from None
        try:
            self._client = self._httpx.Client(timeout=_TIMEOUT_SECONDS)
            gpus = self._select_gpus(self._query_counters())
        except SourceError:
            self.close()
            raise
        return tuple(
            EnergyDevice(uuid, labels.get("modelName", "GPU"))
            for uuid, labels in sorted(gpus.items())
        )

    def read(self, device: EnergyDevice) -> int:
        """Return the counter in microjoules. Raises SourceError."""
        if self._client is None:
            raise SourceError("DCGM: not open")
        if self._clock() - self._asked_at > _FRESH_SECONDS:
            self._query_counters()
        counter = self._counters.get(device.id)
        if counter is None:
            raise SourceError(f"DCGM: Prometheus no longer has {SERIES} of {device.id}")
        return counter

    def close(self) -> None:
        """Close the connection."""
        self._counters, self._asked_at = {}, float("-inf")
        if self._client is not None:
            self._client.close()
            self._client = None

    def _query_counters(self) -> dict[str, dict[str, str]]:
        """Read all counters; return the labels of each GPU by its UUID."""
        samples = self._fetch_samples()
        counters: dict[str, int] = {}
        gpus = {}
        for sample in samples:
            uuid, millijoules = sample.metric.get("UUID", ""), _parse_millijoules(sample.value[1])
            if uuid and millijoules is not None:
                counters[uuid] = max(counters.get(uuid, 0), 1000 * millijoules)
                gpus[uuid] = sample.metric
        self._counters, self._asked_at = counters, self._clock()
        return gpus

    def _fetch_samples(self) -> list[PrometheusSample]:
        try:
            response = self._client.get(f"{self._url}/api/v1/query", params={"query": SERIES})
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            raise SourceError(f"DCGM: Prometheus cannot be asked: {error}") from None
        try:
            return parse_samples(response.status_code, response.content)
        except PrometheusReplyError as error:
            raise SourceError(f"DCGM: {error}") from None

    def _select_gpus(self, gpus: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        if not gpus:
            raise SourceError(
                f"DCGM: Prometheus has no {SERIES}; does it scrape dcgm-exporter, and is that"
                " field among the exporter's counters?"
            )
        if self._asked:
            chosen = {}
            for name in self._asked:
                found = [u for u, labels in gpus.items() if name in (u, labels.get("gpu"))]
                if len(found) != 1:
                    raise SourceError(
                        f"DCGM: {len(found)} GPUs are {name}; there are {_list_gpus(gpus)}"
                    )
                chosen[found[0]] = gpus[found[0]]
            return chosen
        if len({_host_name(labels) for labels in gpus.values()}) > 1:
            raise SourceError(
                "DCGM: Prometheus knows GPUs of several hosts; name this meter's: "
                + _list_gpus(gpus)
            )
        return gpus


def _list_gpus(gpus: dict[str, dict[str, str]]) -> str:
    most = 16
    named = [f"{uuid} on {_host_name(labels)}" for uuid, labels in sorted(gpus.items())]
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if named[most:] else "")


def _host_name(labels: dict[str, str]) -> str:
    return labels.get("Hostname") or labels.get("instance", "")


def _parse_millijoules(text: str) -> int | None:
    """Return the millijoules; None where there are none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return round(value) if 0 <= value < _BLANK else None
