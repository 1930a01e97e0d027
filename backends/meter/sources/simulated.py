"""The counter of a simulated backend, as a GPU's would be read.

With a period it is updated only that often, and in between shows what it last did; its value at an
update is interpolated between the readings before and after, so that it does not matter when it
is looked at.
"""

import json
import re
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from backends.meter.sources.source import EnergyDevice, SourceError

_PATH = "/simulator/energy"
_TIMEOUT_SECONDS = 10.0  # on a busy machine a simulator is late, not gone
_MAX_ANSWER_BYTES = 65_536
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)


class SimulatorSource:
    """The energy counters of simulated backends, each at its URL."""

    kind = "simulator"

    def __init__(
        self,
        *urls: str,
        period_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A counter with a `period_seconds` moves that often; without, at each reading."""
        self.coarse = False
        self._roots = {urlsplit(url).netloc: urlsplit(url) for url in urls}
        self._period_seconds = period_seconds
        self._clock = clock
        self._connections: dict[str, socket.socket] = {}
        self._seen: dict[str, tuple[float, int]] = {}
        self._shown: dict[str, int] = {}

    def open(self) -> tuple[EnergyDevice, ...]:
        """Return one device a backend. Raises SourceError."""
        self._seen.clear()
        return tuple(EnergyDevice(netloc, "simulated GPU") for netloc in self._roots)

    def read(self, device: EnergyDevice) -> int:
        """Return the counter in microjoules. Raises SourceError."""
        value = self._fetch_microjoules(device.id)
        if self._period_seconds is None:
            return value
        at = self._clock()
        seen_at, seen = self._seen.get(device.id, (at, value))
        self._seen[device.id] = (at, value)
        updated_at = at - at % self._period_seconds
        if device.id not in self._shown or value < seen:
            self._shown[device.id] = value
        elif seen_at < updated_at:
            share = (updated_at - seen_at) / (at - seen_at)
            self._shown[device.id] = seen + round((value - seen) * share)
        return self._shown[device.id]

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _fetch_microjoules(self, netloc: str) -> int:
        kept = netloc in self._connections
        try:
            return int(json.loads(self._fetch_body(netloc))["microjoules"])
        except OSError as error:
            self.close()
            if kept:  # the backend closes a connection that was idle for long
                return self._fetch_microjoules(netloc)
            raise SourceError(f"the simulator at {netloc} cannot be read: {error}") from None
        except (ValueError, KeyError, TypeError):
            self.close()
            raise SourceError(f"{netloc} is not a simulated backend") from None

    def _fetch_body(self, netloc: str) -> bytes:
        """Return the answer's body; http.client costs three times the CPU."""
        connection = self._connections.get(netloc)
        if connection is None:
            root = self._roots[netloc]
            address = (root.hostname or "", root.port or 80)
            connection = socket.create_connection(address, timeout=_TIMEOUT_SECONDS)
            self._connections[netloc] = connection
        path = self._roots[netloc].path.rstrip("/") + _PATH
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {netloc}\r\n\r\n".encode())
        answer = b""
        while len(answer) <= _MAX_ANSWER_BYTES:
            piece = connection.recv(_MAX_ANSWER_BYTES)
            if not piece:
                raise ConnectionResetError("the connection was closed")
            answer += piece
            head, end, body = answer.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if end and length and len(body) >= int(length[1]):
                return body
        raise ValueError("an answer that does not end")
