"""`joulegate serve`: checks what it is to serve, listens, and becomes the server: `serving`."""

import logging
import os
import socket
from typing import Final

from backends.listening_socket import open_listening_socket
from gateway import config as configs
from gateway import profile as profiles
from gateway.api.listener import ADMIN_PORT
from gateway.commands.serve_options import ServeOptions
from gateway.console import report_failure, report_usage_error
from gateway.handover import CONFIG, LEVEL, become_server, take_sockets
from gateway.keys_file import check_sharing, load_keys
from gateway.stderr_log import LEVELS, log_to_stderr
from gateway.surfaces_config import AdminConfig
from gateway.telemetry import WORKERS

_log = logging.getLogger("joulegate")

_BACKLOG: Final = 2048


def run(options: ServeOptions) -> int:
    """Serve until told to stop; return the exit code."""
    handed = take_sockets()
    if handed is not None:
        return _serve(handed)
    config, host, port = options.config, options.host, options.port
    workers, log_level = options.workers, options.log_level
    if log_level not in LEVELS:
        return report_usage_error(f"--log-level: {log_level!r} is not one of {', '.join(LEVELS)}")
    try:
        parsed = configs.load_config(config)
        check_profiles(parsed)
        check_sharing(parsed, load_keys(parsed), workers)
    except (configs.ConfigError, profiles.ProfileError) as error:
        return report_usage_error(error)
    os.environ[CONFIG] = str(config)
    os.environ[LEVEL] = log_level
    os.environ[WORKERS] = str(workers)
    log_to_stderr(log_level)
    try:
        listener = open_listener(host, port, parsed.timeouts.stall_seconds)
    except OSError as error:
        return report_failure(f"{host}:{port}: {error.strerror or error}")
    sockets = [listener]
    if parsed.admin is not None:
        try:
            sockets.append(open_admin_listener(parsed.admin))
        except OSError as error:
            where = f"admin: {parsed.admin.host}:{parsed.admin.port}"
            return report_failure(f"{where}: {error.strerror or error}")
    scheme = "http" if parsed.serving_tls is None else "https"
    _log.info("running on %s://%s:%d", scheme, host, listener.getsockname()[1])
    become_server(sockets)
    return _serve(sockets)


def _serve(sockets: list[socket.socket]) -> int:
    """Serve in this very process."""
    from gateway.commands.serving import run_server  # noqa: PLC0415 - uvicorn, for the server alone

    return run_server(sockets)


def open_listener(host: str, port: int, stall_seconds: float | None = None) -> socket.socket:
    """Bind the address. Raises OSError.

    A client that has not read for `stall_seconds` is dropped.
    """
    listener = open_listening_socket(host, port, _BACKLOG)
    listener.set_inheritable(True)
    # A client that stops reading is dropped by the kernel, whatever is still buffered for it.
    if stall_seconds is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_seconds * 1e3))
    return listener


def open_admin_listener(admin: AdminConfig) -> socket.socket:
    """Bind the operators' address, and tell the workers its port. Raises OSError."""
    listener = open_listener(admin.host, admin.port)
    port = listener.getsockname()[1]
    os.environ[ADMIN_PORT] = str(port)
    _log.info("operators on http://%s:%d", admin.host, port)
    return listener


def check_profiles(config: configs.GatewayConfig) -> profiles.CostProfile:
    """Load the config's profiles and see that they have every model. Raises ProfileError."""
    live = profiles.load_profile(config.profile_file, config.learnt_file)
    shadow = live if config.shadow is None else profiles.load_profile(config.shadow_file)
    for profile in (live, shadow):
        for index, model in enumerate(config.models):
            try:
                profile.get_model(model.profile or model.name)
            except profiles.ProfileError as error:
                where = f"models[{index}].profile"
                raise profiles.ProfileError(f"{where}: {error}") from None
    return live
