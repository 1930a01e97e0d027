"""The decision log: one JSON object per request, written in batches off the hot path.

A request costs it one append. A disk that is full or gone costs lines, which are counted; never a
request.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.telemetry.record import RequestRecord

_log = logging.getLogger("joulegate.decisions")
_FLUSH_SECONDS = 0.2
_MAX_PENDING = 20_000


class DecisionLog:
    """Appends records to a file until cancelled; `dropped` is called with lost lines."""

    def __init__(self, path: Path, dropped: Callable[[int], None]) -> None:
        self._path = path
        self._dropped = dropped
        self._pending: list[RequestRecord] = []
        self._broken = False

    def add_record(self, record: RequestRecord) -> None:
        """Take a record, to be written within the second."""
        if len(self._pending) < _MAX_PENDING:
            self._pending.append(record)
        else:
            self._dropped(1)

    async def run(self) -> None:
        """Write what has come in, five times a second, and the rest when cancelled."""
        try:
            while True:
                await asyncio.sleep(_FLUSH_SECONDS)
                await self._flush_pending()
        finally:
            batch, self._pending = self._pending, []
            self._write_lines(batch)

    async def _flush_pending(self) -> None:
        if self._pending:
            batch, self._pending = self._pending, []
            await asyncio.shield(asyncio.to_thread(self._write_lines, batch))

    def _write_lines(self, batch: list[RequestRecord]) -> None:
        lines = b"".join(msgspec.json.encode(record.to_dict()) + b"\n" for record in batch)
        try:
            with self._path.open("ab") as file:
                file.write(lines)
        except OSError as error:
            self._dropped(len(batch))
            if not self._broken:
                _log.error("decision log %s: %s; lines are being lost", self._path, error.strerror)
            self._broken = True
        else:
            self._broken = False
