"""One OpenAI-compatible server under measurement: what it is, its tokens, one timed request."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
from msgspec import Struct

from backends.client import BackendClient
from backends.errors import BackendError, BackendStatusError, BackendTimeout, InvalidResponse
from backends.exposition import sum_series
from backends.http.url import RequestUrl, parse_request_url
from calibration.endpoint.stream import TimedResponse, read_stream

_SHORT_TIMEOUT_SECONDS: Final = 10.0
_FIRST_BYTE_TIMEOUT_SECONDS: Final = 600.0  # the first byte may wait in the server's queue
_MAX_ERROR_BYTES: Final = 1 << 16
_MAX_METRICS_BYTES: Final = 32 << 20


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
    """A server's description of itself."""

    served_name: str
    context_tokens: int | None
    engine: str
    simulated_speed: float | None
    """Simulated seconds per second; None for a real server."""
    tokenizes: bool


class TargetServer:
    """A named backend; `name` is the model's key in rows and profile."""

    def __init__(self, name: str, url: str, api_key: str | None = None) -> None:
        # People paste the SDK's base URL.
        self.url = url.partition("?")[0].rstrip("/").removesuffix("/v1").rstrip("/")
        try:
            parse_request_url(self.url)
        except ValueError as error:
            raise TargetError(str(error)) from None
        self.name = name
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._client: BackendClient
        self._served_name = name

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine, as far as its address tells."""
        return urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")

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
                answer = await self._client.post(self.at("/tokenize"), body, self._headers)
                try:
                    raw = await answer.read_body(_MAX_METRICS_BYTES)
                finally:
                    answer.close()
        except TimeoutError:
            raise BackendTimeout(
                f"/tokenize: no answer within {_SHORT_TIMEOUT_SECONDS:g} s"
            ) from None
        if answer.status != HTTPStatus.OK:
            raise BackendStatusError(answer.status, raw)
        try:
            return msgspec.json.decode(raw, type=_TokenizeResponse).count
        except msgspec.MsgspecError as error:
            raise InvalidResponse(f"/tokenize: {error}") from None

    async def fetch_load(self) -> tuple[int, int] | None:
        """Return (running, waiting) from the server's gauges, or None where it has none."""
        try:
            status, raw = await self._client.get(
                self.at("/metrics"),
                self._headers,
                seconds=_SHORT_TIMEOUT_SECONDS,
                limit=_MAX_METRICS_BYTES,
            )
        except BackendError:
            return None
        running = sum_series(raw, "vllm:num_requests_running")
        waiting = sum_series(raw, "vllm:num_requests_waiting")
        if status != HTTPStatus.OK or running is None:
            return None
        return round(running), round(waiting or 0)

    async def is_reachable(self) -> bool:
        """Whether the server answers at all."""
        try:
            await self._client.get(
                self.at("/v1/models"), self._headers, seconds=_SHORT_TIMEOUT_SECONDS
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
        """Stream one request to its end; `on_tokens` gets token counts. Raises BackendError.

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
                answer = await self._client.post(self.at(path), encoded, headers)
        except TimeoutError:
            raise BackendTimeout(f"no answer within {_FIRST_BYTE_TIMEOUT_SECONDS:g} s") from None
        try:
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise BackendStatusError(answer.status, await answer.read_body(_MAX_ERROR_BYTES))
            return await read_stream(answer, request_id, began, on_tokens)
        finally:
            answer.close()

    def at(self, path: str) -> RequestUrl:
        """Return the address of `path` on this server."""
        return parse_request_url(f"{self.url}/{path.strip('/')}")

    async def _fetch_json(self, path: str, kind: type[Any], *, required: bool = False) -> Any:
        """Return a small answer decoded, or None where the server does not have it."""
        status, raw = await self._client.get(
            self.at(path), self._headers, seconds=_SHORT_TIMEOUT_SECONDS
        )
        if status == HTTPStatus.OK:
            try:
                return msgspec.json.decode(raw, type=kind)
            except msgspec.MsgspecError as error:
                if required:
                    raise InvalidResponse(f"{path}: {error}") from None
        elif required:
            raise BackendStatusError(status, raw)
        return None
