"""Work on files in threads that nobody waits for at the end.

A file system may hang (a network's, a pipe's) in a call that cannot be taken back. In asyncio's own
executor such a call would hold up the end of the process; a daemon thread is left behind.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def run_in_daemon_thread(
    work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> "asyncio.Future[_Result]":
    """Call `work` in a thread of its own; the future has what it returns or raises."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():
            outcome()

    def run() -> None:
        outcome: Callable[[], None]
        try:
            outcome = partial(future.set_result, work(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
            outcome = partial(future.set_exception, error)
        # The loop may be gone by now: then nobody waits for it.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="joulegate-file", daemon=True).start()
    return future
