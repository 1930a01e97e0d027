"""The profiles of a running gateway: the one that decides, and one that may predict in shadow.

Each is read again when its file changes (ConfigMap symlink swaps included) or when told to. A bad
file is refused whole and the last good one stays. A swap is one assignment of an immutable
snapshot: a request keeps the one that it began with.
"""

import logging
from collections.abc import Sequence

from backends.periodic import rounds
from backends.registry import Deployment
from gateway.config import Config
from gateway.profile import ProfileError, Watched
from gateway.service.request.learnt import Learnt
from gateway.service.request.routing_table import Snapshot
from gateway.telemetry.drift import LIVE, SHADOW, Drift
from gateway.telemetry.metrics import Metrics

_log = logging.getLogger("joulegate")

_POLL_SECONDS = 0.1


class Profiles:
    """The snapshots in force. Raises ProfileError where a profile is bad to begin with."""

    def __init__(
        self,
        config: Config,
        deployments: Sequence[Deployment],
        metrics: Metrics,
        drift: Drift,
        learnt: Learnt | None = None,
    ) -> None:
        self._learnt = learnt
        self._config = config
        self._deployments = deployments
        self._metrics = metrics
        self._drift = drift
        self._models = tuple(dict.fromkeys(model.name for model in config.models))
        self._live = Watched(config.profile_file)
        self._shadow = None if config.shadow is None else Watched(config.shadow_file)
        self.live = Snapshot(config, deployments, self._live.current)
        self.shadow = Snapshot(config, deployments, self._shadow.current) if self._shadow else None
        self._publish()

    def reload(self) -> None:
        """Read both anew, whether they have changed or not."""
        self._reload_live()
        self._reload_shadow()

    async def watch(self) -> None:
        """Take changed files into force until cancelled."""
        await rounds(self._look, _POLL_SECONDS, "taking a profile into force")

    def _look(self) -> None:
        if self._live.changed():
            self._reload_live()
        if self._shadow is not None and self._shadow.changed():
            self._reload_shadow()

    def _reload_live(self) -> None:
        fresh = self._read(self._live)
        self._metrics.profile_reloads.labels("refused" if fresh is None else "adopted").inc()
        if fresh is not None:
            if fresh.profile.version != self.live.profile.version:
                self._drift.reset(LIVE)
            self.live = fresh
            self._publish()
            _log.info("profile %s is in force", fresh.profile.version)

    def _reload_shadow(self) -> None:
        fresh = None if self._shadow is None else self._read(self._shadow)
        if fresh is not None:
            if self.shadow is None or fresh.profile.version != self.shadow.profile.version:
                self._drift.reset(SHADOW)
            self.shadow = fresh
            self._publish()
            _log.info("profile %s predicts in shadow", fresh.profile.version)

    def _read(self, watched: Watched) -> Snapshot | None:
        """Return a file's snapshot, or None where the last good one has to stay."""
        try:
            return Snapshot(self._config, self._deployments, watched.read())
        except ProfileError as error:
            _log.error("profile refused, the last good one stays in force: %s", error)
            return None

    def _publish(self) -> None:
        if self._learnt is not None:
            self._learnt.adopt(place.option for place in self.live.places)
        versions = dict.fromkeys(self._models, self.live.profile.version)
        self._metrics.publish_profile(versions)
        for model in self._config.models:
            key = model.profile or model.name
            self._metrics.deployment_info.labels(model.name, model.label, key).set(1)
            fitted = self.live.profile.model(key)
            for quantity, cost in (("seconds", fitted.seconds), ("joules", fitted.joules)):
                self._metrics.publish_cost(
                    model.name, model.label, quantity, cost.coefficients, cost.covariance
                )
        if self.shadow is not None:
            versions = dict.fromkeys(self._models, self.shadow.profile.version)
            self._metrics.publish_profile(versions, shadow=True)
