"""The profiles of a running gateway: the one that decides, and one that may predict in shadow.

Each is read again when its file changes (ConfigMap symlink swaps included) or when told to. A bad
file is refused whole and the last good one stays. A swap is one assignment of an immutable
snapshot: a request keeps the one that it began with.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from backends.periodic import run_periodically
from backends.registry import Deployment
from gateway.config import GatewayConfig
from gateway.daemon_thread import run_in_daemon_thread
from gateway.profile import ProfileError
from gateway.service.request.learnt import Learnt
from gateway.service.request.routing_table import RoutingSnapshot
from gateway.telemetry.drift import LIVE, SHADOW, DriftMetrics
from gateway.telemetry.metrics import GatewayMetrics
from gateway.watched_profile import WatchedProfileFile

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
        self._reload_requested = False
        self._live = WatchedProfileFile(config.profile_file, config.learnt_file)
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
        self._adopt(self._read_files(whether_changed_or_not=True))

    def request_reload(self) -> None:
        """Have both read anew at the next look, whether they have changed or not."""
        self._reload_requested = True

    async def watch_files(self) -> None:
        """Take changed files into force until cancelled."""
        await run_periodically(self._reload_changed, _POLL_SECONDS, "taking a profile into force")

    async def _reload_changed(self) -> None:
        requested, self._reload_requested = self._reload_requested, False
        # Looking at a file, too, takes for ever where its file system hangs.
        self._adopt(await run_in_daemon_thread(self._read_files, whether_changed_or_not=requested))

    def _read_files(self, *, whether_changed_or_not: bool) -> "_FreshSnapshots":
        """Read what has changed; touches nothing that serves."""
        live, shadow = self._live, self._shadow
        return _FreshSnapshots(
            self._read_snapshot(live) if whether_changed_or_not or live.has_changed() else None,
            self._read_snapshot(shadow)
            if shadow is not None and (whether_changed_or_not or shadow.has_changed())
            else None,
        )

    def _adopt(self, fresh: "_FreshSnapshots") -> None:
        if fresh.live is not None:
            self._adopt_live(fresh.live)
        if isinstance(fresh.shadow, RoutingSnapshot):
            self._adopt_shadow(fresh.shadow)

    def _adopt_live(self, fresh: "RoutingSnapshot | _Refused") -> None:
        if isinstance(fresh, _Refused):
            self._metrics.profile.reloads.labels("refused").inc()
            return
        self._metrics.profile.reloads.labels("adopted").inc()
        if fresh.profile.version != self.live.profile.version:
            self._drift.reset_tests(LIVE)
        self.live = fresh
        self._publish_metrics()
        _log.info("profile %s is in force", fresh.profile.version)

    def _adopt_shadow(self, fresh: RoutingSnapshot) -> None:
        if self.shadow is None or fresh.profile.version != self.shadow.profile.version:
            self._drift.reset_tests(SHADOW)
        self.shadow = fresh
        self._publish_metrics()
        _log.info("profile %s predicts in shadow", fresh.profile.version)

    def _read_snapshot(self, watched: WatchedProfileFile) -> "RoutingSnapshot | _Refused":
        """Return a file's snapshot, if the last good one does not have to stay."""
        try:
            return RoutingSnapshot(self._config, self._deployments, watched.read_profile())
        except ProfileError as error:
            _log.error("profile refused, the last good one stays in force: %s", error)
            return _Refused()

    def _publish_metrics(self) -> None:
        if self._learnt is not None:
            self._learnt.adopt(place.option for place in self.live.routed_deployments)
        versions = dict.fromkeys(self._models, self.live.profile.version)
        self._metrics.profile.publish_profile(versions)
        for model in self._config.models:
            key = model.profile or model.name
            self._metrics.profile.deployment_info.labels(
                model.name, model.deployment_label, key
            ).set(1)
            fitted = self.live.profile.get_model(key)
            for quantity, cost in (("seconds", fitted.seconds), ("joules", fitted.joules)):
                self._metrics.profile.publish_cost(
                    model.name, model.deployment_label, quantity, cost.coefficients, cost.covariance
                )
        if self.shadow is not None:
            versions = dict.fromkeys(self._models, self.shadow.profile.version)
            self._metrics.profile.publish_profile(versions, shadow=True)


class _Refused:
    """A file that cannot be used."""


class _FreshSnapshots(NamedTuple):
    """What was read of each file; None where it is still the same."""

    live: RoutingSnapshot | _Refused | None
    shadow: RoutingSnapshot | _Refused | None
