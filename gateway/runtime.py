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
from backends.http.address_rules import AddressRules
from backends.meter.client.meter_client import MeterLink
from backends.registry import group_backends
from gateway import tokens
from gateway.config import GatewayConfig
from gateway.daemon_thread import run_in_daemon_thread
from gateway.service import fleet, optional_parts
from gateway.service.accounting.accounting import RequestAccounting
from gateway.service.accounting.learning import TrafficLearner
from gateway.service.backend_watch import BackendWatch
from gateway.service.callers.api_keys import make_api_keys
from gateway.service.client.passed_headers import fold_names
from gateway.service.config_adoption import ConfigAdopter
from gateway.service.config_reload import ConfigReloader
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.deciding import Deciding
from gateway.service.request.learnt import Learnt
from gateway.service.request.planner import RequestPlanner
from gateway.service.request.profiles import ActiveProfiles
from gateway.service.request.response_ids import ResponseIds
from gateway.service.request.routing_table import ModelNames
from gateway.service.request_gate import change_gate
from gateway.service.running_meters import RunningMeters
from gateway.service.upstream.dispatcher import UpstreamDispatcher
from gateway.service.worker_sharing import WorkerSharing
from gateway.telemetry import SHARED_DIR, count_workers, workers
from gateway.telemetry.drift import DriftMetrics
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

    def __init__(
        self,
        config: GatewayConfig,
        rng: random.Random,
        *,
        path: Path | None = None,
        signals: bool,
    ) -> None:
        """`path` is where the config was read, and is read again when it changes."""
        self._config = config
        self._signals = signals
        folder = os.environ.get(SHARED_DIR)
        self.metrics = GatewayMetrics(CollectorRegistry(), shared=folder is not None)
        self._client = BackendClient(
            connect_seconds=config.timeouts.connect_seconds,
            rules=AddressRules(config.upstream_networks),
        )
        self._log = optional_parts.make_log(config.log.decisions, self.metrics.log_dropped)
        self._access_log = optional_parts.make_log(
            config.log.access, self.metrics.access_log_dropped
        )
        deployments = fleet.build_deployments(config, rng)
        links: dict[str, MeterLink] = {}
        group_backends(deployments)
        fleet.connect_meters(config, deployments, self._client, links)
        self._tracer = optional_parts.make_tracer(config)
        names = ModelNames(config)
        self.metrics.initialise_series(names.models)
        drift = DriftMetrics(self.metrics.registry, names.models)
        sums = OlsSums((deployment.model, deployment.label) for deployment in deployments)
        self._shared = SharedSums(sums, Path(folder)) if folder is not None else None
        self.scrape_registry = workers.make_scrape_registry(self.metrics, sums, self._shared)
        self._learnt = optional_parts.make_learnt(config, folder)
        self._profiles = ActiveProfiles(config, deployments, self.metrics, drift, self._learnt)
        self._carbon = carbon = fleet.make_carbon_intensity(config, self._client)
        boundary = fleet.make_boundary(config, deployments, self.metrics, carbon)
        price = optional_parts.make_energy_price(config)
        deciding = Deciding(learnt=self._learnt, price=price)
        deciding.change_config(config)
        self._spending = optional_parts.make_key_spending(config, self.metrics)
        response_ids = ResponseIds(deployments, config.response_id_secret or config.meter_secret)
        self.gateway = RequestPipeline(
            planner=RequestPlanner(
                names,
                self._profiles,
                _load_token_counter(),
                response_ids,
                deciding=deciding,
                experiment=config.experiment,
            ),
            deployments=deployments,
            dispatcher=UpstreamDispatcher(
                self._client,
                self.metrics,
                config.timeouts,
                config.retry,
                config.limits,
                self._tracer and self._tracer.sampler,
                boundary=boundary,
                passed_headers=fold_names(config.headers.to_backends),
                response_ids=response_ids,
            ),
            metrics=self.metrics,
            accounting=RequestAccounting(
                self.metrics,
                RecentRequests(config.limits.requests_kept),
                deployments,
                decision_log=self._log,
                access_log=self._access_log,
                carbon=carbon,
                learning=TrafficLearner(sums, drift, self._profiles, self._learnt),
                trace=self._tracer and self._tracer.add_record,
                boundary=boundary,
                experiment=optional_parts.make_experiment_metrics(config, self.metrics.registry),
                price=price,
                spending=self._spending,
                accuracy=optional_parts.make_accuracy_account(
                    config, self._learnt, self.metrics.registry
                ),
            ),
            keys=make_api_keys(config, names, self.metrics),
            spending=self._spending,
            log=config.log,
            limits=config.limits,
            passed_headers=fold_names(config.headers.to_clients),
            holder=fleet.make_holder(config, deployments, self.metrics),
            stall_seconds=config.timeouts.stall_seconds,
            stream_seconds=config.timeouts.stream_seconds,
        )
        self.gateway.gate = change_gate(None, config, deployments, self.metrics.admission)
        self._meters = RunningMeters(links, self.gateway.accounting, self.metrics)
        self._watch = BackendWatch(self._client, config.health)
        self._sharing = None
        if folder is not None:
            self._sharing = WorkerSharing(
                Path(folder),
                count_workers(),
                self.gateway.backends,
                self.gateway.dispatcher.bytes_in_flight,
                self._learnt,
            )
        self.reloader = None
        if path is not None:
            adopter = ConfigAdopter(
                config,
                self.gateway,
                self._client,
                self._meters,
                self._watch,
                sums,
                drift,
                boundary=boundary,
                sharing=self._sharing,
                rng=rng,
            )
            self.reloader = ConfigReloader(
                path, config, self._profiles.read_files_of, adopter.adopt, self.metrics.config
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
        work = [self.gateway.run_periodic_work(), self._profiles.watch_files()]
        if self.reloader is not None:
            work.append(self.reloader.watch_file())
        if self.gateway.keys is not None and self._spending is not None:
            work += [self.gateway.keys.watch_file(), self._spending.run()]
        if self._learnt is not None:
            work.append(self._save_learnt(self._learnt))
        if self._carbon is not None:
            work.append(self._carbon.run())
        if self._shared is not None:
            work.append(self._publish_shared_metrics(self._shared))
        if self._sharing is not None:
            work.append(self._sharing.run())
        work += [log.run() for log in (self._log, self._access_log) if log is not None]
        async with self._client:
            tasks = [asyncio.create_task(job) for job in work]
            self._watch.watch_backends(self.gateway.backends)
            self._meters.start_exchanges()
            if self._signals:
                self._install_signal_handlers()
            tune_gc()
            _log.info(
                "policy %s, placement %s in force",
                self._config.policy,
                self._config.placement.mode,
            )
            try:
                yield
            finally:
                await self._close_parts()
                tasks += self._watch.cancel_tasks()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _close_parts(self) -> None:
        # The meters learn of the last ends; then what they owe is estimated and logged.
        await self._meters.close_links()
        self.gateway.accounting.close()
        if self._spending is not None:
            await self._spending.close()
        if self._sharing is not None:
            self._sharing.close()
        if self._learnt is not None:
            self._learnt.close()
        if self._tracer is not None:
            await self._tracer.close()
        if self._shared is not None:
            self._shared.write_sums()

    def _install_signal_handlers(self) -> None:
        """Drain on SIGTERM and SIGINT before the server stops; reload files on SIGHUP."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server's own handler is in place by now; it still gets its turn.
            stop = signal.getsignal(number)

            def handle_signal(number: int, frame: FrameType | None, stop: Any = stop) -> None:
                loop.call_soon_threadsafe(self.start_draining)
                if callable(stop):
                    stop(number, frame)

            signal.signal(number, handle_signal)
        loop.add_signal_handler(signal.SIGHUP, self._request_reload)

    def _request_reload(self) -> None:
        self._profiles.request_reload()
        if self.reloader is not None:
            self.reloader.request_reload()
        if self.gateway.keys is not None:
            self.gateway.keys.request_reload()

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


def tune_gc() -> None:
    """Freeze long-lived objects so that the collector does not rescan them.

    The defaults rescanned every kept record a few times a second: 40 us of CPU per request, and
    pauses that were the whole of the p99 (119 -> 52 ms at 32 connections, measured).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _load_token_counter() -> tokens.TokenCounter:
    counter = tokens.load_token_counter()
    if counter.source == "estimate":
        _log.warning("no tiktoken vocabulary found: tokens are estimated, 4 characters each")
    return counter
