"""`joulegate serve`: the gateway under uvicorn, in one process or several."""

import contextlib
import ctypes
import logging
import math
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import uvicorn
from litestar.types import ASGIApp

from backends.listening_socket import open_listening_socket
from gateway import config as configs
from gateway import profile as profiles
from gateway.api.listener import ADMIN_PORT
from gateway.api.protocol import GuardedProtocol
from gateway.api.serving_tls import ServingCertificate
from gateway.api.surfaces import split_surfaces
from gateway.commands.serve_options import ServeOptions
from gateway.console import LEVELS, OK, log_to_stderr, report_failure, report_usage_error
from gateway.keys_file import check_sharing, load_keys
from gateway.surfaces_config import AdminConfig
from gateway.telemetry import SHARED_DIR, WORKERS

_log = logging.getLogger("joulegate")

_CONFIG = "JOULEGATE_CONFIG"
_LEVEL = "JOULEGATE_LOG_LEVEL"
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MMAP_THRESHOLD_BYTES = 256 * 1024
_BACKLOG = 2048
_GRACE_SECONDS = 5
"""What uvicorn waits beyond the drain deadline, for the error frames to get out."""


class _UnfinishedResponseFilter(logging.Filter):
    """Drops uvicorn's complaint about answers left without their end.

    That is how a broken stream is closed on purpose; it has been counted and logged by then.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing response" not in record.getMessage()


def run(options: ServeOptions) -> int:
    """Serve until told to stop; return the exit code."""
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
    os.environ[_CONFIG] = str(config)
    os.environ[_LEVEL] = log_level
    os.environ[WORKERS] = str(workers)
    settings = make_server_config(
        "gateway.commands.serve:create_worker_app",
        factory=True,
        workers=workers,
        ssl_context_factory=parsed.serving_tls and ServingCertificate(parsed.serving_tls),
        timeout_keep_alive=math.ceil(parsed.timeouts.keep_alive_seconds),
        timeout_graceful_shutdown=int(parsed.timeouts.drain_seconds) + _GRACE_SECONDS,
    )
    _log_to_stderr(log_level)
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
    if workers == 1:
        uvicorn.Server(settings).run(sockets=sockets)
        return OK
    from gateway.commands.workers import WorkerSupervisor  # noqa: PLC0415 - one needs none of it

    with tempfile.TemporaryDirectory(prefix="joulegate-metrics-") as shared:
        os.environ[SHARED_DIR] = shared
        WorkerSupervisor(settings, sockets=sockets).run()
    return OK


def make_server_config(app: Any, **more: Any) -> uvicorn.Config:
    """Return how uvicorn serves the gateway, wherever it does."""
    return uvicorn.Config(
        app,
        http=GuardedProtocol,
        loop="gateway.api.listener:new_serving_loop",
        ws="none",
        proxy_headers=False,
        access_log=False,
        log_config=None,
        server_header=False,
        **more,
    )


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


def return_freed_memory() -> None:
    """Have large blocks given back to the system once freed, where the C library is glibc.

    By itself it raises its threshold to the largest block that was freed, and keeps what comes
    after: bodies of 4 MB leave hundreds of megabytes behind. One arena is enough where one thread
    at a time runs Python: each thread's own would keep what it freed.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        libc.mallopt(_M_ARENA_MAX, 1)


def create_worker_app() -> ASGIApp:
    """Build the application in a worker, from what `run` left in the environment."""
    # Only now: prometheus_client decides at import whether values are shared between workers.
    from gateway.app import bypass_router_for_inference, create_app  # noqa: PLC0415

    _log_to_stderr(os.environ[_LEVEL])
    return_freed_memory()
    path = Path(os.environ[_CONFIG])
    config = configs.load_config(path)
    app = bypass_router_for_inference(create_app(config, path=path, signals=True))
    if config.admin is None:
        return app
    keyed = config.keys is not None
    return split_surfaces(app, config.admin, int(os.environ[ADMIN_PORT]), keyed=keyed)


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


def _log_to_stderr(level: str) -> None:
    log_to_stderr(level)
    logging.getLogger("uvicorn.error").addFilter(_UnfinishedResponseFilter())
