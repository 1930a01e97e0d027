"""The API keys in force: who sent a request, by the digest of what it carries.

The file is read again when it changes or when told to. A bad one is refused whole, and the keys
that were good stay in force: a slip of an editor locks nobody out.
"""

import logging
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

from backends.periodic import run_periodically
from gateway.bounded_file import sign_file
from gateway.config import GatewayConfig
from gateway.daemon_thread import run_in_daemon_thread
from gateway.keys_file import KeyEntry, check_keys, load_keys
from gateway.service.callers.key_limits import make_key_limits
from gateway.service.client.errors import InvalidApiKey
from gateway.service.request.caller import Caller
from gateway.service.request.routing_table import ModelNames
from gateway.structured import ConfigError
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.request_stages import CallerIdentity

_log = logging.getLogger("joulegate")

_POLL_SECONDS: Final = 0.5
_BEARER: Final = b"bearer "


class ApiKeys:
    """Finds the caller of a request. Raises ConfigError where the file is bad to begin with."""

    def __init__(self, config: GatewayConfig, names: ModelNames, metrics: GatewayMetrics) -> None:
        self._config = config
        self._names = names
        self._metrics = metrics
        self._path = Path(config.keys.file if config.keys else "")
        self._reload_requested = False
        self._signature = sign_file(self._path)
        self._entries = load_keys(config)
        self._callers = _make_callers(self._entries, names)

    def identify_caller(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Return who sends these headers. Raises InvalidApiKey."""
        given = False
        for name, value in headers:
            if name == b"authorization":
                if value[: len(_BEARER)].lower() != _BEARER:
                    continue
                key = value[len(_BEARER) :].strip()
            elif name == b"x-api-key":
                key = value
            else:
                continue
            caller = self._callers.get(sha256(key).digest())
            if caller is not None:
                return caller
            given = True
        if given:
            raise InvalidApiKey("this API key is not known here, or was revoked")
        raise InvalidApiKey(
            "an API key is needed: as `Authorization: Bearer KEY`, or as `x-api-key: KEY`",
            code="missing_api_key",
        )

    @property
    def callers(self) -> tuple[Caller, ...]:
        """Everybody who may ask."""
        return tuple(self._callers.values())

    def request_reload(self) -> None:
        """Have the file read anew at the next look, whether it has changed or not."""
        self._reload_requested = True

    async def watch_file(self) -> None:
        """Take a changed file into force until cancelled."""
        await run_periodically(self._reload_changed, _POLL_SECONDS, "taking keys into force")

    async def _reload_changed(self) -> None:
        # Looking at a file takes for ever where its file system hangs.
        signature = await run_in_daemon_thread(sign_file, self._path)
        requested, self._reload_requested = self._reload_requested, False
        if signature == self._signature and not requested:
            return
        self._signature = signature
        try:
            entries = await run_in_daemon_thread(load_keys, self._config)
            # By the names of now: another configuration may have come meanwhile.
            check_keys(entries, self._config)
        except ConfigError as error:
            self._metrics.key_reloads.labels("refused").inc()
            _log.error("keys refused, the last good ones stay in force: %s", error)
            return
        self._entries, self._callers = entries, _make_callers(entries, self._names)
        self._metrics.key_reloads.labels("adopted").inc()
        _log.info("%d API keys are in force", len(self._callers))

    def check_config(self, config: GatewayConfig) -> None:
        """Raise ConfigError where a config lacks what a key in force names."""
        check_keys(self._entries, config)

    def change_config(self, config: GatewayConfig, names: ModelNames) -> None:
        """Take the models and presets of another config, which was checked."""
        self._config, self._names = config, names
        self._callers = _make_callers(self._entries, names)


def _make_callers(entries: Iterable[KeyEntry], names: ModelNames) -> dict[bytes, Caller]:
    return {
        bytes.fromhex(entry.sha256): Caller(
            CallerIdentity(entry.id, entry.tenant),
            names.restrict_to(
                entry.models,
                entry.presets,
                None if entry.weights is None else entry.weights.to_metric_weights(),
            ),
            entry.priority,
            make_key_limits(entry),
        )
        for entry in entries
        if entry.revoked is None
    }


def make_api_keys(
    config: GatewayConfig, names: ModelNames, metrics: GatewayMetrics
) -> ApiKeys | None:
    """Return the keys that are configured; None where everybody may ask. Raises ConfigError."""
    return None if config.keys is None else ApiKeys(config, names, metrics)
