"""gateway.yaml while it is served: read anew when it changes, in force whole or not at all.

Rules: a changed file is read once it has been still for one look, so that one that is being written
is not taken for whole; SIGHUP reads it at once, with every file that it names. What cannot be used
is refused with the reason and the configuration in force stays, whole; so is one that changes a key
that only a start can take (`list_restart_keys`): what is in force is always one file.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backends.periodic import run_periodically
from gateway.changed_files import ChangedFiles
from gateway.config import ConfigError, GatewayConfig, load_config
from gateway.daemon_thread import run_in_daemon_thread
from gateway.profile import ProfileError
from gateway.service.request.profiles import ProfileFiles
from gateway.telemetry.config_metrics import ConfigMetrics

_log = logging.getLogger("joulegate")

_POLL_SECONDS: Final = 0.5
RELOADED: Final = frozenset(
    {
        "models", "profile", "learnt_profile", "shadow", "policy", "placement", "reference_load",
        "bounds", "weights", "default_model", "presets", "limits", "headers",
    }
)  # fmt: skip
"""The keys whose change needs no restart."""

AdoptConfig = Callable[[GatewayConfig, ProfileFiles], str]
"""Takes a configuration into force and says what has changed. Raises ConfigError, ProfileError."""


def list_restart_keys(before: GatewayConfig, after: GatewayConfig) -> list[str]:
    """Return the keys that differ and that only a start takes into force."""
    return [
        key
        for key in GatewayConfig.__struct_fields__
        if key not in RELOADED and getattr(before, key) != getattr(after, key)
    ]


class ConfigReloader:
    """Watches the file at `path`, whose content was `config`."""

    def __init__(
        self,
        path: Path,
        config: GatewayConfig,
        read_profiles: Callable[[GatewayConfig], ProfileFiles],
        adopt: AdoptConfig,
        metrics: ConfigMetrics,
    ) -> None:
        self._path = path
        self._config = config
        self._read_profiles = read_profiles
        self._adopt = adopt
        self._metrics = metrics
        self._file = ChangedFiles(path)

    def request_reload(self) -> None:
        """Have the file read at the next look, whether it has changed or not."""
        self._file.request_read()

    async def watch_file(self) -> None:
        """Take changes into force until cancelled."""
        await run_periodically(self._look, _POLL_SECONDS, "taking a configuration into force")

    async def reload_config(self) -> bool:
        """Read the file and take it into force; tell whether it was fit for it."""
        try:
            config, profiles = await run_in_daemon_thread(self._read_all)
            said = self._adopt(config, profiles)
        except (ConfigError, ProfileError) as error:
            _log.error("configuration refused, the one in force stays: %s", error)
            self._metrics.count_reload(adopted=False)
            return False
        self._config = config
        self._metrics.count_reload(adopted=True)
        _log.info("configuration %s is in force: %s", self._path, said)
        return True

    async def _look(self) -> None:
        if await self._file.look():
            await self.reload_config()

    def _read_all(self) -> tuple[GatewayConfig, ProfileFiles]:
        """Read the file and the profiles it names. Raises ConfigError, ProfileError."""
        config = load_config(self._path)
        if fixed := list_restart_keys(self._config, config):
            raise ConfigError(f"{self._path}: a restart is needed to change {', '.join(fixed)}")
        return config, self._read_profiles(config)
