"""Raw samples out of Prometheus: one instant query of a range selector, its errors in plain words.

Rules: no retry and no redirect; a warning of Prometheus's (part of the data is missing) is handed
on, never dropped; credentials in the URL are sent and never shown.
"""

import functools
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec

from backends.http.url import hide_credentials
from calibration.recalibrate.prometheus_options import PrometheusOptions
from calibration.tables.columns import BadInput

_DURATION = re.compile(r"(?:[0-9]+(?:ms|[smhdwy]))+")
_PART = re.compile(r"([0-9]+)(ms|[smhdwy])")
_UNIT_SECONDS = {
    "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0,
}  # fmt: skip
_SHOWN = 200
_HINTS = {
    401: "; give credentials with --bearer-token-file or --header",
    403: "; these credentials are not enough (--bearer-token-file, --header)",
    404: "; is this the address that Prometheus's own pages start at, its prefix included?",
    422: "; try a shorter --window, or fewer models with --model",
}


class PrometheusError(Exception):
    """Prometheus cannot be reached, refuses, or is something else; the message says which."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        """The HTTP status, where there was one."""


def parse_duration_seconds(text: str) -> float:
    """Return the seconds of a duration as Prometheus writes it (90s, 15m, 1h30m, 7d).

    Raises ValueError for any other text, and for no time at all.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration like 90s, 15m, 6h or 1h30m")
    seconds = sum(int(count) * _UNIT_SECONDS[unit] for count, unit in _PART.findall(text))
    if seconds <= 0.0:
        raise ValueError(f"{text!r} is no time at all")
    return seconds


class Series(msgspec.Struct, frozen=True):
    """One series of a matrix: its labels, and (Unix seconds, value) of each raw sample."""

    metric: dict[str, str]
    values: list[tuple[float, str]] = []

    def describe_instance(self, names: frozenset[str]) -> str:
        """Return whose it is, in words: every label but `names`."""
        rest = (f"{k}={v}" for k, v in sorted(self.metric.items()) if k not in names)
        return ", ".join(rest) or "the only instance"


class _ResponseData(msgspec.Struct, frozen=True):
    resultType: str = ""  # noqa: N815 - Prometheus's name
    result: msgspec.Raw = msgspec.Raw(b"[]")


class _QueryResponse(msgspec.Struct, frozen=True):
    status: str
    data: _ResponseData = _ResponseData()
    error: str = ""
    warnings: list[str] = []


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What one query gave."""

    series: list[Series]
    warnings: list[str]

    @property
    def attributed_warnings(self) -> list[str]:
        """The warnings, with who gives them."""
        return [f"Prometheus warns: {warning}" for warning in self.warnings]


@functools.cache
def _load_certificates() -> ssl.SSLContext:
    # 20 ms each time: once a process, and not for every query.
    return httpx.create_ssl_context()


@dataclass(frozen=True, slots=True)
class PrometheusClient:
    """A server's HTTP API. Raises PrometheusError for what is no address.

    `matchers`, in PromQL, narrow every query: a server often holds more than one's own series.
    Queries share connections; they are closed where a `with` of it ends.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 30.0
    matchers: tuple[str, ...] = ()
    _http: httpx.Client = field(
        default_factory=lambda: httpx.Client(verify=_load_certificates()),
        init=False, repr=False, compare=False,
    )  # fmt: skip

    def __post_init__(self) -> None:
        try:
            address = httpx.URL(self.url)
        except httpx.InvalidURL:
            # Without its text: of a password with a slash in it half is taken for the port.
            raise PrometheusError("this is no address; write / in a password as %2F") from None
        if address.scheme not in {"http", "https"} or not address.host:
            shown = hide_credentials(self.url)
            raise PrometheusError(f"{shown}: want http://… or https://…")

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def redacted_url(self) -> str:
        """The address without any credentials."""
        return str(httpx.URL(self.url).copy_with(username=None, password=None))

    def query_samples(self, metric: str, window: str, at: float, **labels: str) -> QueryResult:
        """Return the raw samples of the `window` (a duration) that ends at `at` (Unix seconds).

        Raises PrometheusError.
        """
        return self.query_matrix(f"{self.select_series(metric, **labels)}[{window}]", at)

    def select_series(self, metric: str, **labels: str) -> str:
        """Return what selects a metric's series: those with `labels`, within the matchers."""
        matchers = [*(f'{name}="{value}"' for name, value in labels.items()), *self.matchers]
        return f"{metric}{{{','.join(matchers)}}}" if matchers else metric

    def query_matrix(self, query: str, at: float) -> QueryResult:
        """Return what an expression of a range gives at `at`. Raises PrometheusError."""
        try:
            answer = self._http.post(
                f"{self.url.rstrip('/')}/api/v1/query",
                data={"query": query, "time": f"{at:.3f}"},
                headers=dict(self.headers),
                timeout=self.timeout_seconds,
            )
        except httpx.TimeoutException:
            text = f"{self.redacted_url}: no answer within {self.timeout_seconds:g} s (--timeout)"
            raise PrometheusError(text) from None
        except httpx.HTTPError as error:
            raise PrometheusError(f"{self.redacted_url}: cannot be reached: {error}") from None
        return self._parse_response(answer)

    def _parse_response(self, answer: httpx.Response) -> QueryResult:
        code = answer.status_code
        parsed = _decode_json(answer.content, _QueryResponse)
        if code != httpx.codes.OK or (parsed is not None and parsed.status != "success"):
            said = parsed.error if parsed is not None else _excerpt_body(answer)
            text = f"{self.redacted_url}: HTTP {code}: {said or answer.reason_phrase}"
            raise PrometheusError(text + _HINTS.get(code, ""), code)
        if parsed is None:
            text = (
                f"{self.redacted_url}: this is not Prometheus: it answers {_excerpt_body(answer)!r}"
            )
            raise PrometheusError(text)
        series = _decode_json(bytes(parsed.data.result), list[Series])
        if parsed.data.resultType != "matrix" or series is None:
            kind = parsed.data.resultType or "nothing"
            raise PrometheusError(f"{self.redacted_url}: not raw samples but {kind} came back")
        return QueryResult(series, parsed.warnings)


def parse_matcher(text: str) -> str:
    """Return NAME=VALUE, NAME!=VALUE, NAME=~REGEX or NAME!~REGEX as PromQL; quotes are optional.

    Raises ValueError.
    """
    found = re.fullmatch(r'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*("?)(.*)\3', text.strip())
    if found is None or '"' in found[4]:
        raise ValueError(f"{text!r} is no label matcher such as namespace=llm")
    value = found[4].replace("\\", "\\\\")
    return f'{found[1]}{found[2]}"{value}"'


def read_headers(given: Iterable[str], bearer_token_file: Path | None) -> dict[str, str]:
    """Read the headers to send; a token file is read each time, for tokens are renewed.

    Raises BadInput, OSError.
    """
    found = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise BadInput(f"--header {name.strip()}: want 'Name: value'")
        found[name.strip()] = value.strip()
    if bearer_token_file is not None:
        try:
            token = bearer_token_file.read_text(encoding="ascii").strip()
        except UnicodeDecodeError:
            text = f"--bearer-token-file {bearer_token_file}: is no token, but other bytes"
            raise BadInput(text) from None
        found["Authorization"] = f"Bearer {token}"
    return found


def _decode_json(raw: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _excerpt_body(answer: httpx.Response) -> str:
    text = " ".join(answer.content[:_SHOWN].decode("utf-8", "replace").split())
    moved = answer.headers.get("location")
    return f"moved to {moved}" if answer.is_redirect and moved else text


def create_client(url: str, options: PrometheusOptions) -> PrometheusClient:
    """Return a client for what the options say. Raises BadInput, PrometheusError, OSError."""
    try:
        match = tuple(parse_matcher(text) for text in options.match)
    except ValueError as error:
        raise BadInput(f"--match {error}") from None
    headers = read_headers(options.header, options.bearer_token_file)
    return PrometheusClient(url, headers, options.timeout, match)
