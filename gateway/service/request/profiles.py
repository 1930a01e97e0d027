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
        self._reload_requested = False
        self._files = _read_profile_files(config)
        live, shadow = self._files
        self.live = RoutingSnapshot(config, deployments, live.current_profile)
        self.shadow: RoutingSnapshot | None = None
        if shadow is not None:
            self.shadow = RoutingSnapshot(config, deployments, shadow.current_profile)
        self._publish_metrics()

    def read_files_of(self, config: GatewayConfig) -> "ProfileFiles":
        """Return another configuration's profiles, read where it names others. Raises ProfileError.

        The last good ones stay good for it where it does not.
        """
        if _list_profile_paths(config) == _list_profile_paths(self._config):
            return self._files
        return _read_profile_files(config)

    def make_snapshots(
        self, config: GatewayConfig, deployments: Sequence[Deployment], files: "ProfileFiles"
    ) -> "Snapshots":
        """Join profiles with another configuration's deployments. Raises ProfileError."""
        kept = files is self._files
        live = self.live.profile if kept else files.live.current_profile
        shadow = None if files.shadow is None else files.shadow.current_profile
        if kept and self.shadow is not None:
            shadow = self.shadow.profile
        return Snapshots(
            RoutingSnapshot(config, deployments, live),
            None if shadow is None else RoutingSnapshot(config, deployments, shadow),
        )

    def change_config(
        self,
        config: GatewayConfig,
        deployments: Sequence[Deployment],
        files: "ProfileFiles",
        snapshots: "Snapshots",
    ) -> None:
        """Go by another configuration, with what was read and made for it."""
        for profile, old, new in (
            (LIVE, self.live, snapshots.live),
            (SHADOW, self.shadow, snapshots.shadow),
        ):
            if old is not None and new is not None and old.profile.version != new.profile.version:
                self._drift.reset_tests(profile)
        before, self._config, self._deployments = self._config, config, deployments
        self._files = files
        self.live, self.shadow = snapshots
        for model in before.models:
            self._metrics.profile.forget_deployment(
                model.name, model.deployment_label, model.profile or model.name
            )
        self._publish_metrics()

    def reload_profiles(self) -> None:
        """Read both anew, whether they have changed or not."""
        self._adopt(
            _read_files(self._files, self._config, self._deployments, whether_changed_or_not=True)
        )

    def request_reload(self) -> None:
        """Have both read anew at the next look, whether they have changed or not."""
        self._reload_requested = True

    async def watch_files(self) -> None:
        """Take changed files into force until cancelled."""
        await run_periodically(self._reload_changed, _POLL_SECONDS, "taking a profile into force")

    async def _reload_changed(self) -> None:
        requested, self._reload_requested = self._reload_requested, False
        files = self._files
        # Looking at a file, too, takes for ever where its file system hangs.
        fresh = await run_in_daemon_thread(
            _read_files, files, self._config, self._deployments, whether_changed_or_not=requested
        )
        if files is self._files:  # else read for a configuration that has been replaced meanwhile
            self._adopt(fresh)

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

    def _publish_metrics(self) -> None:
        if self._learnt is not None:
            self._learnt.adopt(place.option for place in self.live.routed_deployments)
            if self._learnt.accuracy is not None:
                self._learnt.accuracy.adopt(self.live.profile)
        models = dict.fromkeys(model.name for model in self._config.models)
        versions = dict.fromkeys(models, self.live.profile.version)
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
            versions = dict.fromkeys(models, self.shadow.profile.version)
            self._metrics.profile.publish_profile(versions, shadow=True)


class Snapshots(NamedTuple):
    """What decides, and what predicts in shadow."""

    live: RoutingSnapshot
    shadow: RoutingSnapshot | None


class ProfileFiles(NamedTuple):
    """The files that a configuration names; `shadow` None: it names none."""

    live: WatchedProfileFile
    shadow: WatchedProfileFile | None


def _list_profile_paths(config: GatewayConfig) -> tuple[object, ...]:
    return config.profile, config.learnt_profile, config.shadow


def _read_profile_files(config: GatewayConfig) -> ProfileFiles:
    return ProfileFiles(
        WatchedProfileFile(config.profile_file, config.learnt_file),
        None if config.shadow is None else WatchedProfileFile(config.shadow_file),
    )


class _Refused:
    """A file that cannot be used."""


class _FreshSnapshots(NamedTuple):
    """What was read of each file; None where it is still the same."""

    live: RoutingSnapshot | _Refused | None
    shadow: RoutingSnapshot | _Refused | None


def _read_files(
    files: ProfileFiles,
    config: GatewayConfig,
    deployments: Sequence[Deployment],
    *,
    whether_changed_or_not: bool,
) -> _FreshSnapshots:
    """Read what has changed; touches nothing that serves."""

    def read_snapshot(watched: WatchedProfileFile | None) -> RoutingSnapshot | _Refused | None:
        if watched is None or not (whether_changed_or_not or watched.has_changed()):
            return None
        try:
            return RoutingSnapshot(config, deployments, watched.read_profile())
        except ProfileError as error:
            _log.error("profile refused, the last good one stays in force: %s", error)
            return _Refused()

    return _FreshSnapshots(read_snapshot(files.live), read_snapshot(files.shadow))
