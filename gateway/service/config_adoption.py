"""Taking another configuration into force in a running process, between two requests.

Rules: all that can fail is made first and touches nothing that serves; then everything is swapped
without a wait, so that no request sees half of two configurations. A backend that stays keeps its
connections, its load and its ejection. A request that runs ends on the backend it is at, even where
that has left.
"""

import random

from backends.client import BackendClient
from backends.registry import Deployment, list_backends
from gateway.config import GatewayConfig
from gateway.service import fleet
from gateway.service.backend_watch import BackendWatch
from gateway.service.client.passed_headers import fold_names
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.profiles import ProfileFiles
from gateway.service.request.routing_table import ModelNames
from gateway.service.request_gate import change_gate
from gateway.service.running_meters import RunningMeters
from gateway.service.worker_sharing import WorkerSharing
from gateway.telemetry.boundary_account import BoundaryAccount
from gateway.telemetry.drift import DriftMetrics
from gateway.telemetry.ols_sums import OlsSums


class ConfigAdopter:
    """Swaps the configuration of one process's parts."""

    def __init__(
        self,
        config: GatewayConfig,
        gateway: RequestPipeline,
        client: BackendClient,
        meters: RunningMeters,
        watch: BackendWatch,
        sums: OlsSums,
        drift: DriftMetrics,
        *,
        boundary: BoundaryAccount | None,
        sharing: WorkerSharing | None,
        rng: random.Random,
    ) -> None:
        self._config = config
        self._gateway = gateway
        self._client = client
        self._meters = meters
        self._watch = watch
        self._sums = sums
        self._drift = drift
        self._boundary = boundary
        self._sharing = sharing
        self._rng = rng

    def adopt(self, config: GatewayConfig, profiles: ProfileFiles) -> str:
        """Take a configuration into force; return what has changed.

        Raises ProfileError, and ConfigError where a key in force names what it lacks.
        """
        gateway, before = self._gateway, self._config
        old = gateway.deployments
        deployments = fleet.build_deployments(config, self._rng, gateway.backends)
        names = ModelNames(config)
        if gateway.keys is not None:
            gateway.keys.check_config(config)
        snapshots = gateway.planner.profiles.make_snapshots(config, deployments, profiles)
        # From here on nothing fails and nothing waits.
        earlier = {(one.model, one.label): one for one in old}
        for deployment in deployments:
            if (known := earlier.get((deployment.model, deployment.label))) is not None:
                deployment.take_over(known)
        fleet.update_backends(config, before, deployments, self._meters.links, self._client)
        self._drift.add_models(names.models)
        self._sums.add_deployments((one.model, one.label) for one in deployments)
        gateway.metrics.initialise_series(names.models)
        gateway.planner.profiles.change_config(config, deployments, profiles, snapshots)
        self._change_pipeline(config, names, deployments)
        if gateway.keys is not None:
            gateway.keys.change_config(config, names)
        if self._boundary is not None:
            self._boundary.change_deployments(deployments)
        kept = {(one.model, backend.label) for one in deployments for backend in one.backends}
        for one in old:
            for backend in one.backends:
                if (one.model, backend.label) not in kept:
                    gateway.metrics.fleet.forget_backend(one.model, backend.label)
        self._meters.keep_only(fleet.list_meters(config))
        self._watch.watch_backends(gateway.backends)
        if self._sharing is not None and list_backends(old) != gateway.backends:
            self._sharing.change_backends(gateway.backends)
        self._config = config
        return _describe_change(
            {backend.label for backend in list_backends(old)},
            {backend.label for backend in gateway.backends},
        )

    def _change_pipeline(
        self, config: GatewayConfig, names: ModelNames, deployments: tuple[Deployment, ...]
    ) -> None:
        """Have requests served by another configuration from the next one on."""
        gateway = self._gateway
        gateway.planner.names = names
        gateway.deployments = deployments
        gateway.limits = config.limits
        gateway.passed_headers = fold_names(config.headers.to_clients)
        gateway.gate = change_gate(gateway.gate, config, deployments, gateway.metrics.admission)
        gateway.holder = fleet.make_holder(config, deployments, gateway.metrics)
        gateway.planner.deciding.change_config(config)
        gateway.accounting.change_deployments(deployments)
        gateway.accounting.recent.limit = config.limits.requests_kept
        gateway.dispatcher.change_config(config, deployments)


def _describe_change(before: set[str], after: set[str]) -> str:
    told = [f"{len(after)} backends"]
    if added := sorted(after - before):
        told.append(f"added {', '.join(added)}")
    if removed := sorted(before - after):
        told.append(f"removed {', '.join(removed)}")
    return "; ".join(told)
