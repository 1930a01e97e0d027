"""Work on files in threads that nobody waits for at the end.

A file system may hang (a network's, a pipe's) in a call that cannot be taken back. In asyncio's own
executor such a call would hold up the end of the process; a daemon thread is left behind.
A thread that has done its work takes the next: starting one holds the event loop until it runs,
and logs and watched files come to some ten a second.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Jobs = SimpleQueue[tuple[Callable[[], Callable[[], None]], Callable[[Callable[[], None]], None]]]
"""What one thread is to do: the work, and who is told of its outcome."""

_resting: deque[_Jobs] = deque()
"""Those of the threads that wait for work."""
os.register_at_fork(after_in_child=_resting.clear)


def run_in_daemon_thread(
    work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> "asyncio.Future[_Result]":
    """Call `work` in a thread beside all others; the future has what it returns or raises."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():
            outcome()

    def run() -> Callable[[], None]:
        try:
            return partial(future.set_result, work(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
            return partial(future.set_exception, error)

    def tell(outcome: Callable[[], None]) -> None:
        # The loop may be gone by now: then nobody waits for it.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, outcome)

    try:
        jobs = _resting.pop()
    except IndexError:
        jobs = SimpleQueue()
        threading.Thread(target=_work, args=(jobs,), name="joulegate-file", daemon=True).start()
    jobs.put((run, tell))
    return future


def _work(jobs: _Jobs) -> None:
    """Do one job after another, for ever."""
    while True:
        run, tell = jobs.get()
        outcome = run()
        # Before anybody is told: whoever was may ask for the next at once.
        _resting.append(jobs)
        tell(outcome)
        del run, tell, outcome  # a resting thread holds nothing
