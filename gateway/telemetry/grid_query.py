"""The grid's intensity as a Prometheus has it: the series of a grid-intensity exporter."""

from math import fsum, isfinite
from urllib.parse import urlencode

from backends.bearer import build_bearer
from backends.client import BackendClient
from backends.errors import BackendError
from backends.http.url import TlsFiles, parse_request_url
from backends.prometheus_reply import PrometheusReplyError, PrometheusSample, parse_samples

SERIES = "grid_intensity_carbon_average"
"""Grams of CO2e a kWh, by `provider` and `location`."""
_MOST_GRAMS = 10_000.0
_SECONDS = 10.0


class GridQueryError(Exception):
    """Prometheus has no intensity; the message says why."""


class GridQuery:
    """One question to a Prometheus, asked again and again."""

    def __init__(
        self,
        client: BackendClient,
        url: str,
        labels: dict[str, str],
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self.selector = _select(labels)
        question = urlencode({"query": self.selector})
        self._client = client
        self._url = parse_request_url(f"{url.rstrip('/')}/api/v1/query?{question}", tls)
        self._headers = {} if token is None else {"authorization": build_bearer(token)}

    async def fetch_grams_per_kwh(self) -> float:
        """Return the intensity now. Raises GridQueryError."""
        try:
            status, page = await self._client.get(self._url, self._headers, seconds=_SECONDS)
        except BackendError as error:
            raise GridQueryError(f"Prometheus cannot be asked: {error}") from None
        try:
            samples = parse_samples(status, page)
        except PrometheusReplyError as error:
            raise GridQueryError(str(error)) from None
        return self._read_grams(samples)

    def _read_grams(self, samples: list[PrometheusSample]) -> float:
        if not samples:
            raise GridQueryError(f"Prometheus has no {self.selector} now")
        grids = {
            (sample.metric.get("provider", ""), sample.metric.get("location", ""))
            for sample in samples
        }
        if len(grids) > 1:
            named = ", ".join(f"{location} by {provider}" for provider, location in sorted(grids))
            raise GridQueryError(
                f"{self.selector} is of {len(grids)} grids ({named}): name location and provider"
            )
        # Several exporters of one grid differ by when they last looked.
        grams = fsum(_parse_grams(sample.value[1]) for sample in samples) / len(samples)
        if not 0.0 <= grams <= _MOST_GRAMS:
            raise GridQueryError(f"{self.selector} is {grams:g}, which is no grams a kWh")
        return grams


def _select(labels: dict[str, str]) -> str:
    """Return the selector of the series with these labels."""
    escaped = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        for name, value in labels.items()
    }
    inside = ",".join(f'{name}="{value}"' for name, value in escaped.items())
    return f"{SERIES}{{{inside}}}" if inside else SERIES


def _parse_grams(text: str) -> float:
    try:
        grams = float(text)
    except ValueError:
        grams = float("nan")
    # A value that is none of a number compares with nothing: it is refused as one below 0.
    return grams if isfinite(grams) else -1.0
