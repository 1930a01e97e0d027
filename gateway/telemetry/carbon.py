"""Joules to grams of CO2e: by a fixed intensity of the grid, a file of them, or a Prometheus.

Files and Prometheus are asked once a minute beside the serving; a request only looks up. The last
good file stays where a new one is bad. What Prometheus said last holds for an hour; after that the
fixed intensity counts, and without one no grams are told.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from backends.periodic import run_periodically
from gateway.bounded_file import FileSignature, sign_file
from gateway.daemon_thread import run_in_daemon_thread
from gateway.structured import ConfigError
from gateway.telemetry.boundary import JOULES_PER_KWH
from gateway.telemetry.grid_query import GridQuery, GridQueryError
from gateway.telemetry.intensity_table import IntensityTable, read_intensity_table

_log = logging.getLogger("joulegate")
_LOOK_SECONDS: Final = 60.0
_HOLDS_SECONDS: Final = 3600.0


class CarbonIntensity:
    """The intensity in force: `grams_per_kwh`, or what `path` or `grid` says. Raises ConfigError.

    `clock` is in monotonic seconds.
    """

    def __init__(
        self,
        grams_per_kwh: float | None = None,
        *,
        path: Path | None = None,
        grid: GridQuery | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed = grams_per_kwh
        self._file = None if path is None else _open_file(path)
        self._grid = grid
        self._clock = clock
        self._told: tuple[float, float] | None = None
        self._silent = False

    def to_grams(self, joules: float, at: float) -> float | None:
        """Return the grams of `joules` spent at Unix time `at`; None where nothing covers it."""
        intensity = self._find_intensity(at)
        return None if intensity is None else joules / JOULES_PER_KWH * intensity

    def _find_intensity(self, at: float) -> float | None:
        if self._file is not None:
            return self._file.table.find_grams_per_kwh(at)
        if self._told is not None and self._clock() - self._told[1] < _HOLDS_SECONDS:
            return self._told[0]
        return self._fixed

    async def run(self) -> None:
        """Look at what may have changed, once a minute, until cancelled."""
        await run_periodically(self.refresh, _LOOK_SECONDS, "reading the grid's intensity")

    async def refresh(self) -> None:
        """Take a changed file or what Prometheus says now; trouble is logged."""
        if self._file is not None:
            self._file = await run_in_daemon_thread(_read_again, self._file)
        if self._grid is not None:
            await self._ask(self._grid)

    async def _ask(self, grid: GridQuery) -> None:
        try:
            grams = await grid.fetch_grams_per_kwh()
        except GridQueryError as error:
            if not self._silent:
                _log.error("carbon: %s; what was last known holds for an hour", error)
            self._silent = True
        else:
            self._told = (grams, self._clock())
            self._silent = False


class _ReadFile(NamedTuple):
    """A file as it was last looked at; `signature` changes when the file does."""

    path: Path
    signature: FileSignature | None
    table: IntensityTable


def _open_file(path: Path) -> _ReadFile:
    return _ReadFile(path, sign_file(path), read_intensity_table(path))


def _read_again(known: _ReadFile) -> _ReadFile:
    """Return the file as it is now, or the last good one."""
    signature = sign_file(known.path)
    if signature == known.signature:
        return known
    try:
        return _ReadFile(known.path, signature, read_intensity_table(known.path))
    except ConfigError as error:
        _log.error("carbon file refused, the last good one stays: %s", error)
        return known._replace(signature=signature)
