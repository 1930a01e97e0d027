"""Work in daemon threads: its outcome comes back, threads are used again, a hung one is left."""

import threading
import weakref

import pytest

from gateway.daemon_thread import run_in_daemon_thread


async def test_what_it_returns_and_raises_comes_back():
    assert await run_in_daemon_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await run_in_daemon_thread(divmod, 7, 0)


async def test_a_thread_takes_the_next_work():
    first = await run_in_daemon_thread(threading.get_ident)
    assert await run_in_daemon_thread(threading.get_ident) == first
    assert first != threading.get_ident()


async def test_work_does_not_wait_for_what_hangs():
    go = threading.Event()
    hung = run_in_daemon_thread(go.wait)
    busy = await run_in_daemon_thread(threading.get_ident)
    assert busy == await run_in_daemon_thread(threading.get_ident)
    go.set()
    assert await hung


async def test_a_resting_thread_holds_nothing():
    class Work:
        def __call__(self):
            return None

    gone = threading.Event()
    work = Work()
    weakref.finalize(work, gone.set)
    await run_in_daemon_thread(work)
    del work
    assert gone.wait(30)
