"""The profiles of a running gateway: the one that decides, and one that may predict in shadow.

Each is read again when its file changes (ConfigMap symlink swaps included) or when told to. A bad
file is refused whole and the last good one stays. A swap is one assignment of an immutable
snapshot: a request keeps the one that it began with.
"""

import logging
from collections.abc import Sequence

from backends.periodic import run_periodically
from backends.registry import Deployment
from gateway.config import GatewayConfig
from gateway.profile import ProfileError, WatchedProfileFile
from gateway.service.request.learnt import Learnt
from gateway.service.request.routing_table import RoutingSnapshot
from gateway.telemetry.drift import LIVE, SHADOW, DriftMetrics
from gateway.telemetry.metrics import GatewayMetrics

_log = logging.getLogger("joulegate")

_POLL_SECONDS = 0.1


class ActiveProfiles:
    """The snapshots in force. Raises ProfileError where a profile is bad to begin with."""

    def __init__(
        self,
        config: GatewayConfig,
        deployments: Sequence[Deployment],
        metrics: GatewayMetrics,
        drift: DriftMetrics,
        learnt: Learnt | None = None,
    ) -> None:
        self._learnt = learnt
        self._config = config
        self._deployments = deployments
        self._metrics = metrics
        self._drift = drift
        self._models = tuple(dict.fromkeys(model.name for model in config.models))
        self._live = WatchedProfileFile(config.profile_file)
        self._shadow = None if config.shadow is None else WatchedProfileFile(config.shadow_file)
        self.live = RoutingSnapshot(config, deployments, self._live.current_profile)
        self.shadow = (
            RoutingSnapshot(config, deployments, self._shadow.current_profile)
            if self._shadow
            else None
        )
        self._publish_metrics()

    def reload_profiles(self) -> None:
        """Read both anew, whether they have changed or not."""
        self._reload_live()
        self._reload_shadow()

    async def watch_files(self) -> None:
        """Take changed files into force until cancelled."""
        await run_periodically(self._reload_changed, _POLL_SECONDS, "taking a profile into force")

    def _reload_changed(self) -> None:
        if self._live.has_changed():
            self._reload_live()
        if self._shadow is not None and self._shadow.has_changed():
            self._reload_shadow()

    def _reload_live(self) -> None:
        fresh = self._read_snapshot(self._live)
        self._metrics.profile_reloads.labels("refused" if fresh is None else "adopted").inc()
        if fresh is not None:
            if fresh.profile.version != self.live.profile.version:
                self._drift.reset_tests(LIVE)
            self.live = fresh
            self._publish_metrics()
            _log.info("profile %s is in force", fresh.profile.version)

    def _reload_shadow(self) -> None:
        fresh = None if self._shadow is None else self._read_snapshot(self._shadow)
        if fresh is not None:
            if self.shadow is None or fresh.profile.version != self.shadow.profile.version:
                self._drift.reset_tests(SHADOW)
            self.shadow = fresh
            self._publish_metrics()
            _log.info("profile %s predicts in shadow", fresh.profile.version)

    def _read_snapshot(self, watched: WatchedProfileFile) -> RoutingSnapshot | None:
        """Return a file's snapshot, or None where the last good one has to stay."""
        try:
            return RoutingSnapshot(self._config, self._deployments, watched.read_profile())
        except ProfileError as error:
            _log.error("profile refused, the last good one stays in force: %s", error)
            return None

    def _publish_metrics(self) -> None:
        if self._learnt is not None:
            self._learnt.adopt(place.option for place in self.live.routed_deployments)
        versions = dict.fromkeys(self._models, self.live.profile.version)
        self._metrics.publish_profile(versions)
        for model in self._config.models:
            key = model.profile or model.name
            self._metrics.deployment_info.labels(model.name, model.deployment_label, key).set(1)
            fitted = self.live.profile.get_model(key)
            for quantity, cost in (("seconds", fitted.seconds), ("joules", fitted.joules)):
                self._metrics.publish_cost(
                    model.name, model.deployment_label, quantity, cost.coefficients, cost.covariance
                )
        if self.shadow is not None:
            versions = dict.fromkeys(self._models, self.shadow.profile.version)
            self._metrics.publish_profile(versions, shadow=True)
