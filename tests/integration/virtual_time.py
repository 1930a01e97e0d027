"""An event loop whose time passes only while it waits: real sockets, no waiting, no busy machine.

Whenever nothing is ready the clock jumps to the next timer. Over loopback what one side has sent is
readable by the other at once, so that all that can happen at a moment has happened before the next.
`time.monotonic` and its nanoseconds tell the same time meanwhile, and so does the clock of each
backend that a gateway makes.
"""

import asyncio
import selectors
import time
from unittest import mock

from backends.backend import Backend


class _JumpingSelector(selectors.DefaultSelector):
    """Waits by moving the clock."""

    def __init__(self):
        super().__init__()
        self.now = time.monotonic()

    def select(self, timeout=None):
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select()
        self.now += timeout
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.clock = _JumpingSelector()
        super().__init__(self.clock)

    def time(self):
        return self.clock.now

    def read_nanoseconds(self):
        return round(self.clock.now * 1e9)


def run_virtually(make):
    """Run the coroutine that `make()` gives in virtual time; return its result."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        loop = runner.get_loop()
        known = Backend.__init__.__kwdefaults__
        with (
            mock.patch("time.monotonic", loop.time),
            mock.patch("time.monotonic_ns", loop.read_nanoseconds),
            mock.patch.dict(known, {"clock": loop.time}),
        ):
            return runner.run(make())
