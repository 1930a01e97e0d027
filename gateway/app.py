"""Wiring and lifespan: config and profile in, an ASGI application out."""

import asyncio
import gc
import logging
import os
import random
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.types import ASGIApp, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from backends.client import Client
from backends.health import Prober
from backends.registry import Backend, Deployment, Ejection
from gateway import tokens
from gateway.api import errors, health, inference, models, openapi, requests, route
from gateway.config import Config
from gateway.profile import ProfileError, Watched
from gateway.service import headers
from gateway.service.ask import Kind
from gateway.service.candidates import Names, Snapshot
from gateway.service.dispatch import Dispatcher
from gateway.service.gateway import Gateway
from gateway.telemetry.answers import Recast
from gateway.telemetry.decision_log import DecisionLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recent import Recent

_log = logging.getLogger("joulegate")
_PROFILE_POLL_SECONDS = 1.0
_PUBLISH_SECONDS = 1.0
_SHARED_DIR = "PROMETHEUS_MULTIPROC_DIR"


class Runtime:
    """The parts of one process and what keeps them going. Raises ProfileError."""

    def __init__(self, config: Config, rng: random.Random, *, signals: bool) -> None:
        self._config = config
        self._signals = signals
        self._watched = Watched(Path(config.profile) if config.profile else None)
        self.shared = _SHARED_DIR in os.environ
        self.metrics = Metrics(CollectorRegistry(), shared=self.shared)
        self._client = Client(connect_seconds=config.timeouts.connect_seconds)
        decisions = config.log.decisions
        dropped = self.metrics.log_dropped.inc
        self._log = DecisionLog(Path(decisions), dropped) if decisions else None
        deployments = _deployments(config, rng)
        self.gateway = Gateway(
            names=Names(config),
            snapshot=Snapshot(config, deployments, self._watched.current),
            deployments=deployments,
            counter=_counter(),
            dispatcher=Dispatcher(
                self._client, self.metrics, config.timeouts, config.retry, config.limits
            ),
            metrics=self.metrics,
            recent=Recent(config.limits.requests_kept),
            stall_seconds=config.timeouts.stall_seconds,
            decision_log=self._log,
        )
        self._publish_profile()

    def reload_profile(self) -> bool:
        """Take a changed profile into force; the last good one stays where the new one is bad."""
        gateway = self.gateway
        try:
            fresh = self._watched.read()
            gateway.snapshot = Snapshot(self._config, gateway.deployments, fresh)
        except ProfileError as error:
            self.metrics.profile_reloads.labels("refused").inc()
            _log.error("profile refused, the last good one stays in force: %s", error)
            return False
        self.metrics.profile_reloads.labels("adopted").inc()
        self._publish_profile()
        _log.info("profile %s is in force", fresh.version)
        return True

    def drain(self) -> None:
        """Be ready for nothing new, and cut what still runs at the drain deadline."""
        if not self.gateway.draining:
            self.gateway.draining = True
            seconds = self._config.timeouts.drain_seconds
            asyncio.get_running_loop().call_later(seconds, self.gateway.cut_all)
            _log.info("draining: %d in flight, %g s at most", self.gateway.inflight, seconds)

    @asynccontextmanager
    async def lifespan(self, _: Litestar) -> AsyncIterator[None]:
        """Hold connections open and background work running while the application serves."""
        times = self._config.health
        prober = Prober(
            self._client,
            self.gateway.backends,
            out_seconds=times.probe_seconds,
            well_seconds=times.idle_probe_seconds,
            timeout_seconds=times.probe_timeout_seconds,
        )
        work = [prober.run(), self.gateway.tick(), self._watch_profile()]
        if self.shared:
            work.append(self._publish_backends())
        if self._log is not None:
            work.append(self._log.run())
        async with self._client:
            tasks = [asyncio.create_task(job) for job in work]
            if self._signals:
                self._hear_signals()
            _spare_the_collector()
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _hear_signals(self) -> None:
        """Drain on SIGTERM and SIGINT before the server stops; reload the profile on SIGHUP."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server's own handler is in place by now; it still gets its turn.
            stop = signal.getsignal(number)

            def heard(number: int, frame: FrameType | None, stop: Any = stop) -> None:
                loop.call_soon_threadsafe(self.drain)
                if callable(stop):
                    stop(number, frame)

            signal.signal(number, heard)
        loop.add_signal_handler(signal.SIGHUP, self.reload_profile)

    async def _watch_profile(self) -> None:
        while True:
            await asyncio.sleep(_PROFILE_POLL_SECONDS)
            if self._watched.changed():
                self.reload_profile()

    async def _publish_backends(self) -> None:
        # Another worker may be the one that is scraped.
        while True:
            self.metrics.publish_backends(self.gateway.deployments)
            await asyncio.sleep(_PUBLISH_SECONDS)

    def _publish_profile(self) -> None:
        version = self.gateway.snapshot.profile.version
        self.metrics.publish_profile(dict.fromkeys(self.gateway.names.models, version))


def create_app(
    config: Config, *, rng: random.Random | None = None, signals: bool = False
) -> Litestar:
    """Build the application. Raises ProfileError where the profile does not fit the config.

    `app.state.runtime` is the Runtime, `app.state.inference` the handlers that `lead` needs. With
    `signals` it hears SIGTERM, SIGINT and SIGHUP, which only the main thread of a process may.
    """
    rng = rng or random.Random()  # noqa: S311 - spreads load, hides nothing
    runtime = Runtime(config, rng, signals=signals)
    gateway = runtime.gateway
    inferences = {
        kind.path: inference.handler(kind, gateway, config.limits, config.timeouts) for kind in Kind
    }
    app = Litestar(
        route_handlers=[
            *inferences.values(),
            route.handler(gateway, config.limits, config.timeouts),
            *models.handlers(config, gateway.names),
            requests.handler(gateway),
            *health.handlers(gateway, _scraped(runtime.metrics, shared=runtime.shared)),
            openapi.handler(),
        ],
        lifespan=[runtime.lifespan],
        exception_handlers=errors.HANDLERS,
        cors_config=_cors(config),
        openapi_config=None,
        logging_config=None,
    )
    app.state.runtime = runtime
    app.state.inference = inferences
    return app


def _spare_the_collector() -> None:
    """Keep the garbage collector from walking what stays alive anyway.

    The defaults walked every kept record a few times a second: 40 us of CPU per request, and
    pauses that were the whole of the p99 (119 -> 52 ms at 32 connections, measured).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def lead(app: Litestar) -> ASGIApp:
    """Lead plain inference requests straight to their handlers, all else through `app`.

    Litestar's routing and middleware have nothing to do for a POST without an Origin, and cost it
    7 to 10 us.
    """
    direct = {path: handler.fn for path, handler in app.state.inference.items()}

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        handler = direct.get(scope.get("path", "")) if scope.get("method") == "POST" else None
        if handler is None or any(name == b"origin" for name, _ in scope["headers"]):
            await app(scope, receive, send)
        else:
            await handler(scope, receive, send)

    return front


def _counter() -> tokens.Counter:
    counter = tokens.load()
    if counter.source == "estimate":
        _log.warning("no tiktoken vocabulary found: tokens are estimated, 4 characters each")
    return counter


def _deployments(config: Config, rng: random.Random) -> tuple[Deployment, ...]:
    health_config = config.health
    ejection = Ejection(
        health_config.eject_after_failures,
        health_config.eject_seconds,
        health_config.eject_max_seconds,
    )
    return tuple(
        Deployment(
            model.name,
            model.label,
            model.served_name or model.name,
            [
                Backend(backend.root, api_key=backend.api_key, ejection=ejection)
                for backend in model.backends
            ],
            rng=rng,
        )
        for model in config.models
    )


def _scraped(metrics: Metrics, *, shared: bool) -> CollectorRegistry:
    """Return the registry that /metrics shows: this process's, or the sum over the workers."""
    if shared:
        registry = CollectorRegistry()
        registry.register(_Workers())
        return registry
    ProcessCollector(registry=metrics.registry)
    PlatformCollector(registry=metrics.registry)
    GCCollector(registry=metrics.registry)
    return metrics.registry


class _Workers(Collector):
    """The sum over the workers that live; the counters of those that died are kept."""

    def __init__(self) -> None:
        files = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        self._files = Recast(files)
        self._folder = Path(os.environ[_SHARED_DIR])

    def collect(self) -> Iterable[Metric]:
        """Return the families, without the gauges of workers that are no more."""
        for file in self._folder.glob("gauge_live*_*.db"):
            pid = file.stem.rpartition("_")[2]
            if not Path(f"/proc/{pid}").exists():
                mark_process_dead(int(pid))  # type: ignore[no-untyped-call]
        return self._files.collect()


def _cors(config: Config) -> CORSConfig | None:
    if not config.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(config.cors_origins),
        allow_methods=["GET", "POST", "OPTIONS"],
        allow_headers=["*"],
        expose_headers=list(headers.RESPONSE),
        max_age=600,
    )
