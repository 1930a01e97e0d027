"""What the commands print with: results on stdout, everything else on stderr."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import msgspec
from rich.console import Console

_Running = TypeVar("_Running")

OK = 0
FAILED = 1
UNUSABLE = 2

_PIPE_COLUMNS = 160

out = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def report_usage_error(error: object) -> int:
    """Print one clear message; return the exit code for something that cannot be used."""
    err.print(f"joulegate: {error}", markup=False)
    return UNUSABLE


def report_failure(error: object) -> int:
    """Print one clear message; return the exit code for something that went wrong meanwhile."""
    err.print(f"joulegate: {error}", markup=False)
    return FAILED


def format_os_error(error: OSError) -> str:
    """Say which file and what is wrong with it, without Python's error number."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def print_json(report: Any, *, line: bool = False) -> None:
    """Print it for machines: indented, or on one line and at once for what comes again."""
    raw = msgspec.json.encode(report)
    sys.stdout.write((raw if line else msgspec.json.format(raw)).decode() + "\n")
    sys.stdout.flush()


def run_until_told(
    start: Coroutine[Any, Any, AbstractAsyncContextManager[_Running]],
    host: str,
    port: int,
    announce: Callable[[_Running], None] = lambda _: None,
    leave: Callable[[_Running], Awaitable[None]] | None = None,
) -> int:
    """Run a server until SIGINT or SIGTERM; return the exit code, FAILED where it cannot listen.

    `leave` is awaited before it closes.
    """

    async def serve() -> None:
        stopped = make_stop_event()
        async with await start as running:
            announce(running)
            await stopped.wait()
            if leave is not None:
                await leave(running)

    try:
        asyncio.run(serve())
    except OSError as error:
        return report_failure(f"{host}:{port}: {error.strerror or error}")
    return OK


def make_stop_event() -> asyncio.Event:
    """Return what SIGINT and SIGTERM will set; a container's PID 1 hears neither by itself."""
    event = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event
