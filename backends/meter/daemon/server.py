"""The meter on a socket: beside vLLM in production, within a process for tests and the demo."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from backends.bearer import is_bearer_of
from backends.listening_socket import format_server_url, open_listening_socket
from backends.meter.clock import clock_us
from backends.meter.daemon import token_poller as tokens
from backends.meter.daemon.ledger_runner import LedgerSpec
from backends.meter.daemon.metrics import MeterMetricsCollector
from backends.meter.daemon.service import BadBatchError, MeterService, TooManyGatewaysError
from backends.meter.ledger.ledger import EnergyLedger
from backends.meter.protocol import EVENTS_PATH, EventBatch
from backends.meter.sources.source import EnergySource
from backends.metrics_page import encode_metrics_page
from backends.periodic import run_periodically

_log = logging.getLogger("joulegate.meter")

_MAX_BODY_BYTES = 1 << 20
_BODY_SECONDS = 5.0
_MAX_BODIES_PER_ADDRESS = 16
"""Bodies of one address that are being read, each of up to a mebibyte."""
_KEEPALIVE_SECONDS = 75.0
_SHUTDOWN_SECONDS = 0.5
_MAINTENANCE_SECONDS = 1.0

_decoder = msgspec.json.Decoder(EventBatch)
_encoder = msgspec.json.Encoder()


class _MeterHandlers:
    """The endpoints."""

    def __init__(self, meter: MeterService, secret: str | None) -> None:
        self._meter = meter
        self._secret = secret
        self._bodies: Counter[str] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(MeterMetricsCollector(meter))

    async def post_events(self, request: web.Request) -> web.Response:
        """POST /v1/events."""
        if not self._is_authorised(request):
            return _error_response(
                HTTPStatus.UNAUTHORIZED, "the meter's secret is missing or wrong", "invalid_api_key"
            )
        address = request.remote or ""
        if self._bodies[address] >= _MAX_BODIES_PER_ADDRESS:
            return _error_response(
                HTTPStatus.TOO_MANY_REQUESTS, "too many batches at once", "too_many_batches"
            )
        self._bodies[address] += 1
        try:
            return await self._receive_batch(request, address)
        finally:
            self._bodies -= Counter((address,))

    async def _receive_batch(self, request: web.Request, address: str) -> web.Response:
        """Read a batch and answer it."""
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await request.read()
            answer = self._meter.receive_batch(_decoder.decode(body), clock_us(), address)
        except TimeoutError:
            return _error_response(
                HTTPStatus.REQUEST_TIMEOUT,
                f"no whole body in {_BODY_SECONDS:g} s",
                "body_too_slow",
            )
        except web.HTTPRequestEntityTooLarge:
            return _error_response(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is over {_MAX_BODY_BYTES} bytes",
                "body_too_large",
            )
        except (msgspec.MsgspecError, UnicodeDecodeError, BadBatchError) as error:
            return _error_response(HTTPStatus.BAD_REQUEST, str(error), "bad_batch")
        except TooManyGatewaysError as error:
            return _error_response(HTTPStatus.TOO_MANY_REQUESTS, str(error), "too_many_gateways")
        return _json_response(_encoder.encode(answer))

    async def get_health(self, _: web.Request) -> web.Response:
        """GET /health: 503, and why, while no ledger has a counter that can be read."""
        ledgers = {name: station.describe_health() for name, station in self._meter.runners.items()}
        well = all(
            ledger["counting"] and not any(device["still"] for device in ledger["devices"])
            for ledger in ledgers.values()
        )
        body = {
            "status": "ok" if well else "degraded",
            "reasons": [reason for r in self._meter.runners.values() for reason in r.troubles],
            "meter": self._meter.id,
            "ledgers": ledgers,
            "host": None if self._meter.host is None else self._meter.host.describe_health(),
        }
        status = HTTPStatus.OK if self._meter.has_counters else HTTPStatus.SERVICE_UNAVAILABLE
        return _json_response(_encoder.encode(body), status)

    async def get_metrics(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        page, kind = encode_metrics_page(self._registry, request.headers.get("accept", ""))
        return web.Response(body=page, headers={"content-type": kind})

    def _is_authorised(self, request: web.Request) -> bool:
        if self._secret is None:
            return True
        return is_bearer_of(request.headers.get("authorization"), self._secret)


def _json_response(body: bytes, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(body=body, status=status, headers={"content-type": "application/json"})


def _error_response(status: int, message: str, code: str) -> web.Response:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    body: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code}
    return _json_response(_encoder.encode({"error": body}), status)


@web.middleware
async def _handle_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except web.HTTPException as error:
        answer = _error_response(error.status, error.reason, error.reason.lower().replace(" ", "_"))
    except Exception:  # noqa: BLE001 - one bug must not end the meter
        _log.exception("a bug in answering %s", request.path)
        answer = _error_response(
            HTTPStatus.INTERNAL_SERVER_ERROR, "the meter failed; its log says why", "internal_error"
        )
    return answer


@dataclass(slots=True)
class RunningMeter:
    """A meter that listens."""

    host: str
    port: int
    meter: MeterService
    _runner: web.AppRunner
    _work: asyncio.Task[None]

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return format_server_url(self.host, self.port)

    @property
    def ledgers_by_name(self) -> dict[str, EnergyLedger]:
        """Its ledgers by name, for whoever wants to look inside."""
        return {name: station.ledger for name, station in self.meter.runners.items()}

    async def close(self) -> None:
        """Stop listening and reading, free everything."""
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)
        await self._runner.cleanup()
        stops = (sampler.stop_thread for sampler in self.meter.samplers)
        # In threads, because a source in the middle of a reading may want this very loop.
        await asyncio.gather(*(asyncio.to_thread(stop) for stop in stops))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def start_meter(
    ledgers: Sequence[LedgerSpec],
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    secret: str | None = None,
    hz: float = 20.0,
    host_source: EnergySource | None = None,
) -> RunningMeter:
    """Meter in this event loop; port 0 takes a free one. Raises OSError."""
    meter = MeterService(ledgers, hz=hz, host_source=host_source)
    handlers = _MeterHandlers(meter, secret)
    app = web.Application(middlewares=[_handle_errors], client_max_size=_MAX_BODY_BYTES)
    app.add_routes(
        [
            web.post(EVENTS_PATH, handlers.post_events),
            web.get("/health", handlers.get_health),
            web.get("/metrics", handlers.get_metrics),
        ]
    )
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=_KEEPALIVE_SECONDS,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    sock = open_listening_socket(host, port)
    try:
        await runner.setup()
        await web.SockSite(runner, sock).start()
    except BaseException:
        sock.close()
        await runner.cleanup()
        raise
    for sampler in meter.samplers:
        sampler.start_thread()
    work = asyncio.get_running_loop().create_task(_run_background_tasks(meter))
    return RunningMeter(host, sock.getsockname()[1], meter, runner, work)


async def _run_background_tasks(meter: MeterService) -> None:
    """Do what has to be done whether gateways post or not."""
    roots = [root for station in meter.runners.values() for root in station.roots]

    def record_token_counts(root: str, totals: tokens.TokenTotals) -> None:
        meter.record_token_counts(root, clock_us(), totals)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tokens.poll_backends(sorted(set(roots)), record_token_counts))
        tasks.create_task(
            run_periodically(
                lambda: meter.expire_gateways(clock_us()), _MAINTENANCE_SECONDS, "tidying"
            )
        )
