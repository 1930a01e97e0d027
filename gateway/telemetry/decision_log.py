"""The decision log: one JSON object per request, written in batches off the hot path.

Rules of this file:

- A line is made when its record is given, on the event loop: made in the thread, hundreds at once
  held the interpreter, and every request in flight waited for it. What cannot be written costs
  lines, which are counted; never a request, and never the end of the process.
- The file is opened for each batch, so that it may be rotated away, and without waiting: a pipe
  (`/dev/stdout` of a container is one) takes what fits into it, and the lines that do not are lost.
- A line that was cut is finished first, or the next would be glued to it.
- A file system that hangs holds up a thread that nobody waits for.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from gateway.daemon_thread import run_in_daemon_thread

_log = logging.getLogger("joulegate.decisions")
_FLUSH_SECONDS = 0.2
_LAST_SECONDS = 2.0
"""What the end of the process waits for, for lines still to be written."""
_MAX_PENDING = 20_000
_lines = msgspec.json.Encoder()
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
_NO_READER = "nobody reads this pipe"


class LogLine(Protocol):
    """What the log takes."""

    def to_log_line(self) -> dict[str, Any]:
        """Return what is to be written of it, as JSON takes it."""


class DecisionLog:
    """Appends records to a file until cancelled; `dropped` is called with lost lines."""

    def __init__(self, path: Path, dropped: Callable[[int], None]) -> None:
        self._path = path
        self._dropped = dropped
        self._pending: list[bytes] = []
        self._cut = b""
        self._cut_file: tuple[int, int] | None = None
        self._broken = False
        self._writing: asyncio.Future[int] | None = None

    def add_record(self, record: LogLine) -> None:
        """Take a record, to be written within the second."""
        if len(self._pending) < _MAX_PENDING:
            self._pending.append(_lines.encode_lines([record.to_log_line()]))
        else:
            self._dropped(1)

    async def run(self) -> None:
        """Write what has come in, five times a second, and the rest when cancelled."""
        try:
            while True:
                await asyncio.sleep(_FLUSH_SECONDS)
                await self._flush_pending()
        finally:
            await self._write_last()

    async def _flush_pending(self) -> None:
        if self._pending:
            batch, self._pending = self._pending, []
            self._writing = run_in_daemon_thread(self._append_lines, batch)
            # Whoever is cancelled here leaves the writing to `_write_last`.
            lost = await asyncio.shield(self._writing)
            self._writing = None
            self._dropped(lost)

    async def _write_last(self) -> None:
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                if self._writing is not None:
                    self._dropped(await asyncio.shield(self._writing))
                await self._flush_pending()
        except TimeoutError:
            _log.error("decision log %s: hangs; its last lines are lost", self._path)

    def _append_lines(self, lines: list[bytes]) -> int:
        """Append lines to the file; return how many were lost."""
        try:
            handle = os.open(self._path, _FLAGS, 0o666)
        except OSError as error:
            self._note_trouble(_NO_READER if error.errno == errno.ENXIO else error.strerror)
            return len(lines)
        try:
            return self._write_lines(handle, lines)
        finally:
            os.close(handle)

    def _write_lines(self, handle: int, lines: list[bytes]) -> int:
        """Write the end of the line that was cut, then these; return how many are lost."""
        found = os.fstat(handle)
        file = (found.st_dev, found.st_ino)
        cut = self._cut if self._cut_file == file else b""
        self._cut = b""
        rest = memoryview(cut + b"".join(lines))
        total = len(rest)
        trouble: str | None = None
        while rest and trouble is None:
            try:
                rest = rest[os.write(handle, rest) :]
            except OSError as error:
                slow = isinstance(error, BlockingIOError)
                trouble = "its reader is too slow" if slow else error.strerror
        self._note_trouble(trouble)
        if trouble is None:
            return 0
        written = total - len(rest)
        end = len(cut)
        if written < end:
            self._cut, self._cut_file = cut[written:], file
            return len(lines)
        for number, line in enumerate(lines):
            if written <= end:
                return len(lines) - number
            end += len(line)
            if written < end:
                self._cut, self._cut_file = line[written - end :], file
        return 0

    def _note_trouble(self, trouble: str | None) -> None:
        """Say once that lines are being lost, until they no longer are."""
        if trouble is not None and not self._broken:
            _log.error("decision log %s: %s; lines are being lost", self._path, trouble)
        self._broken = trouble is not None
