"""What one gateway process is made of, and what keeps it going: background work, drain, signals."""

import asyncio
import gc
import logging
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from litestar import Litestar
from prometheus_client import CollectorRegistry

from backends.client import BackendClient
from backends.gauges import GaugePoller
from backends.health import HealthProber
from gateway import tokens
from gateway.config import GatewayConfig
from gateway.daemon_thread import run_in_daemon_thread
from gateway.scheduling.energy_price import EnergyPrice
from gateway.service import fleet
from gateway.service.accounting.accounting import RequestAccounting
from gateway.service.accounting.learning import TrafficLearner
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.deciding import Deciding
from gateway.service.request.learnt import Learnt
from gateway.service.request.learnt_exchange import get_shared_key
from gateway.service.request.profiles import ActiveProfiles
from gateway.service.request.response_ids import ResponseIds
from gateway.service.request.routing_table import ModelNames
from gateway.service.upstream.dispatcher import UpstreamDispatcher
from gateway.service.worker_sharing import WorkerSharing
from gateway.telemetry import SHARED_DIR, count_workers, workers
from gateway.telemetry.decision_log import DecisionLog
from gateway.telemetry.drift import DriftMetrics
from gateway.telemetry.experiment import ExperimentMetrics
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.ols_sums import OlsSums, SharedSums
from gateway.telemetry.recent import RecentRequests

_log = logging.getLogger("joulegate")
_PUBLISH_SECONDS = 1.0
_SAVE_SECONDS = 60.0
_SHARED_SAVE_SECONDS = 5.0
"""Where a worker that takes another's place begins with what was saved."""


class GatewayRuntime:
    """The parts of one process and what keeps them going. Raises ProfileError, ConfigError."""

    def __init__(self, config: GatewayConfig, rng: random.Random, *, signals: bool) -> None:
        self._config = config
        self._signals = signals
        folder = os.environ.get(SHARED_DIR)
        self.metrics = GatewayMetrics(CollectorRegistry(), shared=folder is not None)
        self._client = BackendClient(connect_seconds=config.timeouts.connect_seconds)
        decisions = config.log.decisions
        dropped = self.metrics.log_dropped.inc
        self._log = DecisionLog(Path(decisions), dropped) if decisions else None
        deployments = fleet.build_deployments(config, rng)
        self._meters = fleet.connect_meters(config, deployments, self._client)
        self._tracer = _make_tracer(config)
        names = ModelNames(config)
        self.metrics.initialise_series(names.models)
        drift = DriftMetrics(self.metrics.registry, names.models)
        sums = OlsSums((deployment.model, deployment.label) for deployment in deployments)
        self._shared = SharedSums(sums, Path(folder)) if folder is not None else None
        self.scrape_registry = workers.make_scrape_registry(self.metrics, sums, self._shared)
        learning = config.learning
        state = Path(learning.state) if learning.state else None
        self._learnt = _make_learnt(state, folder) if learning.enabled else None
        self._profiles = ActiveProfiles(config, deployments, self.metrics, drift, self._learnt)
        self._carbon = carbon = fleet.make_carbon_intensity(config, self._client)
        boundary = fleet.make_boundary(config, deployments, self.metrics, carbon)
        load = config.reference_load
        price = _make_energy_price(config)
        self.gateway = RequestPipeline(
            names=names,
            profiles=self._profiles,
            deployments=deployments,
            counter=_load_token_counter(),
            dispatcher=UpstreamDispatcher(
                self._client,
                self.metrics,
                config.timeouts,
                config.retry,
                config.limits,
                self._tracer and self._tracer.sampler,
                boundary=boundary,
                response_ids=ResponseIds(
                    deployments, config.response_id_secret or config.meter_secret
                ),
            ),
            metrics=self.metrics,
            accounting=RequestAccounting(
                self.metrics,
                RecentRequests(config.limits.requests_kept),
                deployments,
                decision_log=self._log,
                meters=self._meters,
                carbon=carbon,
                learning=TrafficLearner(sums, drift, self._profiles, self._learnt),
                trace=self._tracer and self._tracer.add_record,
                boundary=boundary,
                experiment=_make_experiment_metrics(config, self.metrics.registry),
                price=price,
            ),
            experiment=config.experiment,
            log=config.log,
            stall_seconds=config.timeouts.stall_seconds,
            stream_seconds=config.timeouts.stream_seconds,
            deciding=Deciding(
                config.placement.rules(),
                self._learnt,
                fixed_load=None if load == "auto" else float(load),
                price=price,
            ),
        )
        self._sharing = None
        if folder is not None:
            self._sharing = WorkerSharing(
                Path(folder),
                count_workers(),
                self.gateway.backends,
                self.gateway.bytes_in_flight,
                self._learnt,
            )

    def start_draining(self) -> None:
        """Refuse new requests, and cancel those in flight at the drain deadline."""
        if not self.gateway.draining:
            self.gateway.draining = True
            seconds = self._config.timeouts.drain_seconds
            asyncio.get_running_loop().call_later(seconds, self.gateway.cancel_all)
            _log.info(
                "draining: %d in flight, %g s at most", self.gateway.inflight_requests, seconds
            )

    @asynccontextmanager
    async def run_lifespan(self, _: Litestar) -> AsyncIterator[None]:
        """Hold connections open and background work running while the application serves."""
        times = self._config.health
        prober = HealthProber(
            self._client,
            self.gateway.backends,
            ejected_period_seconds=times.probe_seconds,
            healthy_period_seconds=times.idle_probe_seconds,
            timeout_seconds=times.probe_timeout_seconds,
        )
        gauges = GaugePoller(
            self._client,
            self.gateway.backends,
            seconds=times.load_seconds,
            timeout_seconds=times.probe_timeout_seconds,
        )
        work = [
            prober.run(),
            gauges.run(),
            self.gateway.run_periodic_work(),
            self._profiles.watch_files(),
        ]
        work += [link.run() for link in self._meters]
        if self._learnt is not None:
            work.append(self._save_learnt(self._learnt))
        if self._carbon is not None:
            work.append(self._carbon.run())
        if self._shared is not None:
            work.append(self._publish_shared_metrics(self._shared))
        if self._sharing is not None:
            work.append(self._sharing.run())
        if self._log is not None:
            work.append(self._log.run())
        async with self._client:
            tasks = [asyncio.create_task(job) for job in work]
            if self._signals:
                self._install_signal_handlers()
            _tune_gc()
            _log.info(
                "policy %s, placement %s in force",
                self._config.policy,
                self._config.placement.mode,
            )
            try:
                yield
            finally:
                await self._close_parts()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _close_parts(self) -> None:
        # The meters learn of the last ends; then what they owe is estimated and logged.
        last = (link.exchange_batch() for link in self._meters)
        await asyncio.gather(*last, return_exceptions=True)
        self.gateway.accounting.close()
        if self._sharing is not None:
            self._sharing.close()
        if self._learnt is not None:
            self._learnt.close()
        if self._tracer is not None:
            await self._tracer.close()
        if self._shared is not None:
            self._shared.write_sums()

    def _install_signal_handlers(self) -> None:
        """Drain on SIGTERM and SIGINT before the server stops; reload the profile on SIGHUP."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server's own handler is in place by now; it still gets its turn.
            stop = signal.getsignal(number)

            def handle_signal(number: int, frame: FrameType | None, stop: Any = stop) -> None:
                loop.call_soon_threadsafe(self.start_draining)
                if callable(stop):
                    stop(number, frame)

            signal.signal(number, handle_signal)
        loop.add_signal_handler(signal.SIGHUP, self._profiles.request_reload)

    async def _save_learnt(self, learnt: Learnt) -> None:
        while True:
            await asyncio.sleep(_SAVE_SECONDS if self._sharing is None else _SHARED_SAVE_SECONDS)
            state = learnt.snapshot_state()
            if state is not None:
                await run_in_daemon_thread(learnt.write_state, state)

    async def _publish_shared_metrics(self, sums: SharedSums) -> None:
        # Another worker may be the one that is scraped.
        while True:
            self.gateway.publish_gauges()
            sums.write_sums()
            await asyncio.sleep(_PUBLISH_SECONDS)


def _tune_gc() -> None:
    """Freeze long-lived objects so that the collector does not rescan them.

    The defaults rescanned every kept record a few times a second: 40 us of CPU per request, and
    pauses that were the whole of the p99 (119 -> 52 ms at 32 connections, measured).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _make_learnt(state: Path | None, folder: str | None) -> Learnt:
    """Return what has been learnt; workers share it in `folder`, and a new one finds it there."""
    if folder is None:
        return Learnt(state)
    try:
        shared = Path(folder)
        return Learnt(state or shared / "learnt.json", get_shared_key(shared))
    except OSError as error:
        _log.error("this worker learns by itself: %s", error)
        return Learnt(state)


def _load_token_counter() -> tokens.TokenCounter:
    counter = tokens.load_token_counter()
    if counter.source == "estimate":
        _log.warning("no tiktoken vocabulary found: tokens are estimated, 4 characters each")
    return counter


def _make_energy_price(config: GatewayConfig) -> EnergyPrice | None:
    """Return what holds this process to its part of the energy budget, where there is one."""
    if config.energy_budget is None:
        return None
    return EnergyPrice(config.energy_budget.joules_per_hour / count_workers())


def _make_experiment_metrics(
    config: GatewayConfig, registry: CollectorRegistry
) -> ExperimentMetrics | None:
    """Return what counts for the arms of a switchback, where one is configured."""
    given = config.experiment
    if given is None:
        return None
    baseline = given.baseline.policy or given.baseline.model or ""
    return ExperimentMetrics(registry, given.make_switchback(), baseline)


def _make_tracer(config: GatewayConfig) -> Any:
    """Return the RequestTracer, or None."""
    wanted = config.tracing
    if wanted.endpoint is None:
        return None
    from gateway.telemetry.tracing import RequestTracer  # noqa: PLC0415 - needs an extra

    return RequestTracer(wanted.endpoint, wanted.sample_ratio, wanted.service_name)
