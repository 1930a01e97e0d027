"""A simulated vLLM server on a socket: for tests, for the demo and for the command line."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from aiohttp import web

from backends.bearer import is_bearer_of
from backends.listening_socket import format_server_url, open_listening_socket
from backends.simulator.cohere_handlers import CohereHandlers
from backends.simulator.cost_model import CostModel
from backends.simulator.draining import DrainGate
from backends.simulator.engine import BatchingEngine
from backends.simulator.fault_middleware import apply_faults
from backends.simulator.faults import FaultInjector
from backends.simulator.handlers import RequestHandler, SimulatorHandlers, json_response
from backends.simulator.judging_handlers import JudgingHandlers
from backends.simulator.protocol import SimulatorError, error_body
from backends.simulator.scoring_handlers import ScoringHandlers
from backends.simulator.spec import SimulatorSpec
from backends.simulator.token_handlers import TokenHandlers
from backends.simulator.typed_handlers import TypedHandlers

_MORE_HANDLERS = (TypedHandlers, ScoringHandlers, TokenHandlers, JudgingHandlers, CohereHandlers)
SERVER_KEY = web.AppKey("server", SimulatorHandlers)
_GATE_KEY = web.AppKey("gate", DrainGate)
_MAX_BODY_BYTES = 64 << 20
_KEEPALIVE_SECONDS = 5.0  # uvicorn's default, hence vLLM's
_SHUTDOWN_SECONDS = 0.5
_REOPEN_TRIES = 100
_BACKLOG = 1024


def create_app(spec: SimulatorSpec) -> web.Application:
    """The server as an aiohttp application; its state is `app[SERVER]`."""
    server = SimulatorHandlers(spec)
    gate = DrainGate()

    @web.middleware
    async def handle_errors(request: web.Request, handler: RequestHandler) -> web.StreamResponse:
        try:
            if not _is_authorised(request, spec.api_key):
                response: web.StreamResponse = json_response(
                    b'{"error":"Unauthorized"}', HTTPStatus.UNAUTHORIZED
                )
            else:
                response = await apply_faults(server, request, handler)
        except SimulatorError as error:
            response = json_response(error.body, error.status)
        except web.HTTPException as error:
            body = error_body(error.status, error.reason, error.reason.replace(" ", "") + "Error")
            response = json_response(body, error.status)
        if not response.prepared:
            response.headers["x-simulated"] = "true"
        return response

    async def run_scheduler(_: web.Application) -> AsyncIterator[None]:
        server.scheduler_loop.start_task()
        yield
        server.faults.clear_faults()
        await server.scheduler_loop.stop_task()

    @web.middleware
    async def count_requests(request: web.Request, handler: RequestHandler) -> web.StreamResponse:
        return await gate.answer(request, handler)

    middlewares = [count_requests, handle_errors]
    app = web.Application(middlewares=middlewares, client_max_size=_MAX_BODY_BYTES)
    app[SERVER_KEY] = server
    app[_GATE_KEY] = gate
    app.add_routes(server.list_routes())
    for make_handlers in _MORE_HANDLERS:
        app.add_routes(make_handlers(server).list_routes())
    app.cleanup_ctx.append(run_scheduler)
    return app


def _is_authorised(request: web.Request, api_key: str | None) -> bool:
    """Whether the key is right; like vLLM, only /v1 is guarded."""
    if api_key is None or not request.path.startswith("/v1"):
        return True
    return is_bearer_of(request.headers.get("authorization"), api_key)


@dataclass(slots=True)
class RunningSimulator:
    """A simulated server that listens."""

    host: str
    port: int
    spec: SimulatorSpec
    engine: BatchingEngine
    faults: FaultInjector
    _runner: web.AppRunner
    _gate: DrainGate
    _listener: asyncio.Server | None = None
    _reopening: asyncio.Task[None] | None = None
    _closed: bool = False

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return format_server_url(self.host, self.port)

    def set_cost_model(self, truth: CostModel) -> None:
        """Make the model slower, hungrier or otherwise different from now on."""
        self.engine.set_cost_model(truth)

    async def drain(self, seconds: float) -> None:
        """Refuse new requests and wait until those that run have ended, but no longer."""
        await self._gate.drain(seconds)

    async def close(self) -> None:
        """Stop listening, cut what is in flight, free everything."""
        if self._closed:
            return
        self._closed = True
        self.faults.on_change = lambda: None
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
        self._stop_listening()
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _listen_on(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        factory = self._runner.server
        if factory is None:  # pragma: no cover - set up before anything listens
            raise RuntimeError("the runner is not set up")
        self._listener = await loop.create_server(factory, sock=sock, backlog=_BACKLOG)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _apply_refusal(self) -> None:
        """Close or reopen the listening socket as the fault `refuse` says."""
        if self.faults.refuses_connections:
            if self._reopening is not None:
                self._reopening.cancel()
                self._reopening = None
            self._stop_listening()
        elif self._listener is None and self._reopening is None:
            self._reopening = asyncio.get_running_loop().create_task(self._reopen_listener())

    async def _reopen_listener(self) -> None:
        for _ in range(_REOPEN_TRIES):
            try:
                sock = open_listening_socket(self.host, self.port, _BACKLOG)
            except OSError:  # uvloop closes the old one in its next round
                await asyncio.sleep(0.01)
                continue
            await self._listen_on(sock)
            break
        self._reopening = None


async def start_simulator(
    spec: SimulatorSpec, host: str = "127.0.0.1", port: int = 0
) -> RunningSimulator:
    """Serve `spec` in this event loop; port 0 takes a free one. Close it with `close()`."""
    app = create_app(spec)
    server = app[SERVER_KEY]
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,  # a client that leaves aborts its request in the engine
        keepalive_timeout=_KEEPALIVE_SECONDS,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    sock = open_listening_socket(host, port, _BACKLOG)
    try:
        await runner.setup()
        running = RunningSimulator(
            host, sock.getsockname()[1], spec, server.engine, server.faults, runner, app[_GATE_KEY]
        )
        await running._listen_on(sock)  # noqa: SLF001 - one module, one noun
    except BaseException:
        sock.close()
        await runner.cleanup()
        raise
    server.faults.on_change = running._apply_refusal  # noqa: SLF001
    return running
