"""A client that has closed its side: half, and waits for its answer, or altogether.

Both look the same (a FIN), until something is sent: a client that is gone answers with a reset.
Before an answer has begun, an interim response (RFC 9110, 15.2: 100, which every HTTP/1.1 client
must be able to take) is such a thing; then the connection's state tells.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from typing import Final

_LOOK_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Between looks; the last one goes on."""
_TCP_CLOSE: Final = 7
_INTERIM: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class HalfClosedWatch:
    """Watches a connection whose client has closed its side, until `stop` or a reset."""

    def __init__(self, transport: asyncio.Transport, on_reset: Callable[[], None]) -> None:
        self._transport = transport
        self._on_reset = on_reset
        self._loop = asyncio.get_running_loop()
        self._waits: Iterator[float] = iter(_LOOK_SECONDS)
        transport.write(_INTERIM)
        self._timer = self._loop.call_later(next(self._waits), self._look)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._transport.is_closing() or _was_reset(self._transport):
            self._on_reset()
            return
        self._timer = self._loop.call_later(next(self._waits, _LOOK_SECONDS[-1]), self._look)


def can_tell_half_closed() -> bool:
    """Whether this system tells the state of a connection."""
    return hasattr(socket, "TCP_INFO")


def _was_reset(transport: asyncio.Transport) -> bool:
    # uvloop's own socket object cannot be asked.
    fileno = os.dup(transport.get_extra_info("socket").fileno())
    with socket.socket(fileno=fileno) as sock:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
