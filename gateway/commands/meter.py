"""`joulegate meter`: measures the joules of each request, beside the backends it runs on."""

import ipaddress
import logging
import os
from pathlib import Path
from typing import cast

from backends.meter.daemon import server
from backends.meter.daemon.ledger_runner import BackendSpec, LedgerSpec
from backends.meter.sources.choose import choose_host_source, choose_source
from gateway import meter_config as configs
from gateway.commands.meter_options import MeterOptions
from gateway.console import (
    report_usage_error,
    run_until_told,
)
from gateway.stderr_log import LEVELS, log_to_stderr
from gateway.structured import ConfigError, check_secret, read_config_text

_log = logging.getLogger("joulegate")

_SECRET = "JOULEGATE_METER_SECRET"  # noqa: S105 - the variable's name
_NEED_SECRET = (
    "--host {host}: whoever reaches it could post events and move everybody's joules. Give it a"
    f" secret (--secret-file, {_SECRET} or `secret` in meter.yaml, and `meter_secret` in"
    " gateway.yaml), or say with --no-secret or `allow_unauthenticated: true` that only gateways"
    " can reach it"
)


def run(options: MeterOptions) -> int:
    """Meter until told to stop; return the exit code."""
    config, host, port, log_level = options.config, options.host, options.port, options.log_level
    source, devices, backends, url = options.source, options.device, options.backend, options.url
    if log_level not in LEVELS:
        return report_usage_error(f"--log-level: {log_level!r} is not one of {', '.join(LEVELS)}")
    given = {"--source": source, "--device": devices, "--backend": backends, "--url": url}
    try:
        if config is None:
            parsed = _config_from_options(source or "auto", devices, backends, url)
        elif clashing := [name for name, value in given.items() if value]:
            return report_usage_error(f"{clashing[0]}: belongs into {config}, which is given too")
        else:
            parsed = configs.load_meter_config(config)
        secret = _read_secret(options.secret_file) or parsed.secret
        _check_reach(host, secret, allowed=options.no_secret or parsed.allow_unauthenticated)
    except ConfigError as error:
        return report_usage_error(error)
    log_to_stderr(log_level)
    if secret is None and not _is_loopback(host):
        _log.warning("without a secret, whoever reaches %s may post events", host)
    # One line a second of each query of Prometheus would bury the rest.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    ledgers = [_make_ledger_spec(ledger) for ledger in parsed.ledgers]
    return run_until_told(
        server.start_meter(
            ledgers,
            host,
            port,
            secret=secret,
            hz=options.hz or parsed.hz,
            host_source=choose_host_source(parsed.host, Path(parsed.powercap)),
        ),
        host,
        port,
        lambda running: _log.info("metering on %s", running.url),
    )


def _check_reach(host: str, secret: str | None, *, allowed: bool) -> None:
    """Raise ConfigError where strangers could post events and nobody said that they may."""
    if secret is None and not allowed and not _is_loopback(host):
        raise ConfigError(_NEED_SECRET.format(host=host))


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _config_from_options(
    source: str, devices: list[str], backends: list[str], url: str | None
) -> configs.MeterConfig:
    """Return the config of one ledger that the options describe. Raises ConfigError."""
    if source not in configs.SOURCES:
        raise ConfigError(f"--source: {source!r} is not one of {', '.join(configs.SOURCES)}")
    try:
        ledger = configs.LedgerConfig(
            source=cast("configs.SourceName", source),
            devices=tuple(devices),
            url=url,
            backends=tuple(configs.MeteredBackend(backend) for backend in backends),
        )
        return configs.MeterConfig(ledgers=(ledger,))
    except ValueError as error:
        raise ConfigError(f"--{error}") from None


def _read_secret(path: Path | None) -> str | None:
    """Return the secret of a file or of the environment. Raises ConfigError."""
    if path is None:
        secret, origin = os.environ.get(_SECRET), _SECRET
    else:
        secret, origin = read_config_text(path).strip(), str(path)
    if secret is not None:
        try:
            check_secret("secret", secret)
        except ValueError as error:
            raise ConfigError(f"{origin}: {error}") from None
    return secret


def _make_ledger_spec(config: configs.LedgerConfig) -> LedgerSpec:
    """Return a ledger and the source that it will be read through."""
    return LedgerSpec(
        config.name,
        choose_source(config.source, [str(device) for device in config.devices], config.url or ""),
        tuple(BackendSpec(backend.root_url, backend.names) for backend in config.backends),
    )
