"""One OpenAI-compatible server under measurement: what it is, its tokens, one timed request."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import msgspec
from msgspec import Struct
from yarl import URL

from backends.client import BackendClient
from backends.errors import BackendError, BackendStatusError, BackendTimeout, InvalidResponse
from calibration.endpoint.stream import TimedResponse, read_stream

_SHORT_TIMEOUT_SECONDS: Final = 10.0
_FIRST_BYTE_TIMEOUT_SECONDS: Final = 600.0  # the first byte may wait in the server's queue
_MAX_ERROR_BYTES: Final = 1 << 16
_MAX_METRICS_BYTES: Final = 32 << 20
_OK: Final = 200
_BAD: Final = 400


class TargetError(ValueError):
    """A backend that cannot be measured as it is; the message says why."""


class _ModelCard(Struct):
    id: str
    max_model_len: int | None = None


class _ModelList(Struct):
    data: list[_ModelCard]


class _VersionResponse(Struct):
    version: str


class _SimulatorEnergyResponse(Struct):
    speed: float


class _TokenizeResponse(Struct):
    count: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says of itself."""

    served_name: str
    context_tokens: int | None
    engine: str
    simulated_speed: float | None
    """Simulated seconds per second; None for a real server."""
    tokenizes: bool


class TargetServer:
    """A named backend; `name` is the model's key in rows and profile."""

    def __init__(self, name: str, url: str, api_key: str | None = None) -> None:
        try:
            parsed = URL(url)
        except ValueError as error:
            raise TargetError(f"{url}: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise TargetError(f"{url}: not an http:// or https:// address")
        # People paste the SDK's base URL.
        self.url = URL(str(parsed.with_query(None)).rstrip("/").removesuffix("/v1"))
        self.name = name
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._client: BackendClient
        self._served_name = name

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine, as far as its address tells."""
        return self.url.host in ("localhost", "127.0.0.1", "::1")

    async def fetch_server_info(self, client: BackendClient) -> ServerInfo:
        """Ask the server what it is; measures with `client` from then on.

        Raises BackendError where it does not answer, TargetError where it lacks the model.
        """
        self._client = client
        cards = await self._fetch_json("/v1/models", _ModelList, required=True)
        card = next((c for c in cards.data if c.id == self.name), None) if cards else None
        if card is None and cards and len(cards.data) == 1:
            card = cards.data[0]
        if card is None:
            have = ", ".join(c.id for c in cards.data) if cards else ""
            raise TargetError(f"{self.name}: {self.url} serves no such model (it has: {have})")
        self._served_name = card.id
        version = await self._fetch_json("/version", _VersionResponse)
        counter = await self._fetch_json("/simulator/energy", _SimulatorEnergyResponse)
        try:
            tokenizes = await self.count_tokens("a") > 0
        except BackendError:
            tokenizes = False
        return ServerInfo(
            served_name=card.id,
            context_tokens=card.max_model_len,
            engine=f"vllm {version.version}" if version else "",
            simulated_speed=counter.speed if counter else None,
            tokenizes=tokenizes,
        )

    async def count_tokens(self, text: str) -> int:
        """Return the server's own token count of a prompt. Raises BackendError."""
        body = msgspec.json.encode({"model": self._served_name, "prompt": text})
        try:
            async with asyncio.timeout(_SHORT_TIMEOUT_SECONDS):
                answer = await self._client.post(self._build_url("/tokenize"), body, self._headers)
                try:
                    raw = await answer.read_body(_MAX_METRICS_BYTES)
                finally:
                    answer.close()
        except TimeoutError:
            raise BackendTimeout(
                f"/tokenize: no answer within {_SHORT_TIMEOUT_SECONDS:g} s"
            ) from None
        if answer.status != _OK:
            raise BackendStatusError(answer.status, raw)
        try:
            return msgspec.json.decode(raw, type=_TokenizeResponse).count
        except msgspec.MsgspecError as error:
            raise InvalidResponse(f"/tokenize: {error}") from None

    async def fetch_load(self) -> tuple[int, int] | None:
        """Return (running, waiting) from the server's gauges, or None where it has none."""
        try:
            status, raw = await self._client.get(
                self._build_url("/metrics"),
                self._headers,
                seconds=_SHORT_TIMEOUT_SECONDS,
                limit=_MAX_METRICS_BYTES,
            )
        except BackendError:
            return None
        running = _sum_gauge(raw, b"vllm:num_requests_running")
        waiting = _sum_gauge(raw, b"vllm:num_requests_waiting")
        if status != _OK or running is None:
            return None
        return running, waiting or 0

    async def is_reachable(self) -> bool:
        """Whether the server answers at all."""
        try:
            await self._client.get(
                self._build_url("/v1/models"), self._headers, seconds=_SHORT_TIMEOUT_SECONDS
            )
        except BackendError:
            return False
        return True

    async def stream_request(
        self,
        path: str,
        asked: Mapping[str, Any],
        on_tokens: Callable[[int], None],
        *,
        counting: bool,
    ) -> TimedResponse:
        """Stream one request to its end; `on_tokens` hears of new tokens. Raises BackendError.

        With `counting` every chunk says how many tokens there are so far; without, one is assumed.
        """
        body = {
            "model": self._served_name,
            **asked,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": counting},
        }
        request_id = f"profile-{uuid4().hex}"
        headers = {**self._headers, "X-Request-Id": request_id}
        encoded = msgspec.json.encode(body)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_FIRST_BYTE_TIMEOUT_SECONDS):
                answer = await self._client.post(
                    self.url.joinpath(*path.split("/")), encoded, headers
                )
        except TimeoutError:
            raise BackendTimeout(f"no answer within {_FIRST_BYTE_TIMEOUT_SECONDS:g} s") from None
        try:
            if answer.status >= _BAD:
                raise BackendStatusError(answer.status, await answer.read_body(_MAX_ERROR_BYTES))
            return await read_stream(answer, request_id, began, on_tokens)
        finally:
            answer.close()

    def _build_url(self, path: str) -> URL:
        return self.url.joinpath(*path.strip("/").split("/"))

    async def _fetch_json(self, path: str, kind: type[Any], *, required: bool = False) -> Any:
        """Return a small answer decoded, or None where the server has no such thing."""
        status, raw = await self._client.get(
            self._build_url(path), self._headers, seconds=_SHORT_TIMEOUT_SECONDS
        )
        if status == _OK:
            try:
                return msgspec.json.decode(raw, type=kind)
            except msgspec.MsgspecError as error:
                if required:
                    raise InvalidResponse(f"{path}: {error}") from None
        elif required:
            raise BackendStatusError(status, raw)
        return None


def _sum_gauge(exposition: bytes, name: bytes) -> int | None:
    """Return a gauge added up over its label sets (engines of a data-parallel server)."""
    found = None
    for line in exposition.splitlines():
        if line.startswith(name) and line[len(name) : len(name) + 1] in (b"{", b" "):
            try:
                found = (found or 0) + round(float(line.rpartition(b" ")[2]))
            except ValueError:
                continue
    return found
