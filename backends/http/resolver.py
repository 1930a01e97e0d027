"""Names to addresses, off the event loop, each asked for once at a time and again after a while.

Rules: an address that is a number is never looked up; a name is looked up again once its answer is
`TTL_SECONDS` old; where that fails the old answer stays, so that a gateway outlives its DNS.
"""

import asyncio
import socket
import time
from typing import Final

TTL_SECONDS: Final = 30.0

Endpoint = tuple[int, tuple[str, int] | tuple[str, int, int, int]]
"""An address family and what `connect` takes there."""


class HostResolver:
    """The addresses of one host and port."""

    __slots__ = ("_expires", "_lookup", "_lookups", "endpoints", "host", "numeric", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.endpoints: list[Endpoint] = []
        self._expires = 0.0
        self._lookup: asyncio.Task[list[Endpoint]] | None = None
        self._lookups = 0
        try:
            flags = socket.AI_NUMERICHOST
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        except OSError:
            self.numeric = False
        else:
            self.numeric = True
            self.endpoints = _distinct(found)

    @property
    def stale(self) -> bool:
        """Whether the name should be looked up again."""
        return not self.numeric and time.monotonic() >= self._expires

    def expire(self) -> None:
        """Look the name up anew for the next connection: none of its addresses could be reached."""
        self._expires = 0.0

    async def resolve(self) -> list[Endpoint]:
        """Return the addresses in the order to try them. Raises OSError for an unknown name."""
        if self.stale:
            if self._lookup is None:
                self._lookup = asyncio.get_running_loop().create_task(self._look_up())
                self._lookup.add_done_callback(self._looked_up)
            # Whoever began it may be cancelled; the others still want it.
            await asyncio.shield(self._lookup)
        return self._in_turn()

    def close(self) -> None:
        """Give up a lookup that is still on its way."""
        if self._lookup is not None:
            self._lookup.cancel()

    async def _look_up(self) -> list[Endpoint]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError:
            if not self.endpoints:
                raise
        else:
            self.endpoints = _distinct(found)
        self._expires = time.monotonic() + TTL_SECONDS
        return self.endpoints

    def _looked_up(self, lookup: asyncio.Task[list[Endpoint]]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # has been seen, even where all who waited have left

    def _in_turn(self) -> list[Endpoint]:
        """Begin with another address each time, so that the replicas behind a name share."""
        found = self.endpoints
        if len({family for family, _ in found}) > 1:
            return found  # the system's order says which family works here
        start = self._lookups % max(1, len(found))
        self._lookups += 1
        return found[start:] + found[:start]


def _distinct(found: list[tuple]) -> list[Endpoint]:  # type: ignore[type-arg]
    """Return families and addresses, each once, in order."""
    return list(dict.fromkeys((int(family), address) for family, *_, address in found))
