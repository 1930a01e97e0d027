"""Lessons that the workers of one host tell each other, so that each knows what all have seen.

Rules: each worker has a datagram socket in the folder that they share, and sends what it learnt
itself, in batches, to every other one; nobody waits. A batch that finds a full queue is lost, which
costs a little learning; a socket whose worker is gone is removed by whoever finds out. What comes
is applied as if it had been seen here, and told to nobody.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from gateway.service.request.learnt import Learnt
from gateway.service.request.lessons import Told

_log = logging.getLogger("joulegate")

_KEY_BYTES: Final = 32
_PER_DATAGRAM: Final = 200
_MOST_BYTES: Final = 1 << 17
_READ_PER_TURN: Final = 16

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Told])


class LearntExchange:
    """One worker's socket in `folder`. Raises OSError where there can be none."""

    def __init__(self, folder: Path, learnt: Learnt) -> None:
        self.lost = 0
        """Batches that others did not take."""
        self._folder = folder
        self._learnt = learnt
        self._path = folder / f"learnt_{os.getpid()}_{secrets.token_hex(4)}.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.bind(str(self._path))
        except OSError:
            self._socket.close()
            raise
        learnt.start_telling()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen to the others from now on."""
        loop.add_reader(self._socket, self.receive_lessons)

    def send_lessons(self) -> None:
        """Tell the others what has been learnt here since the last call."""
        lessons = self._learnt.take_told()
        if not lessons:
            return
        others = [path for path in self._folder.glob("learnt_*.sock") if path != self._path]
        for start in range(0, len(lessons), _PER_DATAGRAM):
            batch = _encoder.encode(lessons[start : start + _PER_DATAGRAM])
            for path in others:
                self._send(batch, path)

    def receive_lessons(self) -> None:
        """Apply what has come; the rest waits for the loop's next turn."""
        for batch in self._read_batches():
            try:
                lessons = _decoder.decode(batch)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                _log.warning("a worker sent lessons that cannot be read")
                continue
            for lesson in lessons:
                self._learnt.apply(lesson)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send what is left and leave."""
        self.send_lessons()
        loop.remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _read_batches(self) -> Iterator[bytes]:
        for _ in range(_READ_PER_TURN):
            try:
                yield self._socket.recv(_MOST_BYTES)
            except (BlockingIOError, InterruptedError):
                return

    def _send(self, batch: bytes, path: Path) -> None:
        try:
            self._socket.sendto(batch, str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        except OSError:
            self.lost += 1


def get_shared_key(folder: Path) -> bytes:
    """Return the key by which all workers of a folder hash applications. Raises OSError."""
    path = folder / "learnt.key"
    fresh = folder / f".learnt_{os.getpid()}_{secrets.token_hex(4)}.key"
    fresh.touch(mode=0o600)
    try:
        fresh.write_bytes(secrets.token_bytes(_KEY_BYTES))
        # Unlike a rename it leaves the one that is there.
        path.hardlink_to(fresh)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_bytes()
