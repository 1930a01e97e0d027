"""The process that serves: the gateway under uvicorn, alone or as the parent of workers.

It finds what to serve in its environment (`gateway.handover`), and imports nothing that only a
command needs.
"""

import contextlib
import ctypes
import logging
import math
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import uvicorn
from litestar.types import ASGIApp

from gateway import config as configs
from gateway.api.listener import ADMIN_PORT
from gateway.api.protocol import GuardedProtocol
from gateway.api.serving_tls import ServingCertificate
from gateway.api.surfaces import split_surfaces
from gateway.handover import CONFIG, LEVEL
from gateway.stderr_log import log_to_stderr
from gateway.telemetry import SHARED_DIR, count_workers

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MMAP_THRESHOLD_BYTES: Final = 256 * 1024
_GRACE_SECONDS: Final = 5
"""What uvicorn waits beyond the drain deadline, for the error frames to get out."""
_UNUSABLE: Final = 2
_INTERRUPTED: Final = 128 + signal.SIGINT


class _UnfinishedResponseFilter(logging.Filter):
    """Drops uvicorn's complaint about answers left without their end.

    That is how a broken stream is closed on purpose; it has been counted and logged by then.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing response" not in record.getMessage()


def run_server(sockets: list[socket.socket]) -> int:
    """Serve on these until told to stop; return the exit code."""
    try:
        config = configs.load_config(Path(os.environ[CONFIG]))
    except configs.ConfigError as error:  # changed since it was checked
        sys.stderr.write(f"joulegate: {error}\n")
        return _UNUSABLE
    settings = make_server_config(
        "gateway.commands.serving:create_worker_app",
        factory=True,
        workers=count_workers(),
        ssl_context_factory=config.serving_tls and ServingCertificate(config.serving_tls),
        timeout_keep_alive=math.ceil(config.timeouts.keep_alive_seconds),
        timeout_graceful_shutdown=int(config.timeouts.drain_seconds) + _GRACE_SECONDS,
    )
    _log_to_stderr(os.environ[LEVEL])
    try:
        _run_processes(settings, sockets)
    except KeyboardInterrupt:  # SIGINT once more, after all has ended as it should
        return _INTERRUPTED
    return 0


def _run_processes(settings: uvicorn.Config, sockets: list[socket.socket]) -> None:
    if settings.workers == 1:
        uvicorn.Server(settings).run(sockets=sockets)
        return
    from gateway.commands.workers import WorkerSupervisor  # noqa: PLC0415 - one needs none of it

    with tempfile.TemporaryDirectory(prefix="joulegate-metrics-") as shared:
        os.environ[SHARED_DIR] = shared
        WorkerSupervisor(settings, sockets=sockets).run()


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

    _log_to_stderr(os.environ[LEVEL])
    return_freed_memory()
    path = Path(os.environ[CONFIG])
    config = configs.load_config(path)
    app = bypass_router_for_inference(create_app(config, path=path, signals=True))
    if config.admin is None:
        return app
    keyed = config.keys is not None
    return split_surfaces(app, config.admin, int(os.environ[ADMIN_PORT]), keyed=keyed)


def _log_to_stderr(level: str) -> None:
    log_to_stderr(level)
    logging.getLogger("uvicorn.error").addFilter(_UnfinishedResponseFilter())
