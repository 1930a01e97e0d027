"""Joules to grams of CO2e, by a fixed grid intensity or by a file of them by the hour.

The file is CSV, `hour,grams_per_kwh`, with one line an hour: either an hour of the day (0 to 23) or
a moment (2026-11-20T08:00), both UTC; a moment's own line counts before the day's. It is read again
when it changes, at most once a minute; the last good one stays where a new one is bad.
"""

import csv
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from gateway.structured import ConfigError

_log = logging.getLogger("joulegate")
_JOULES_PER_KWH = 3_600_000.0
_LOOK_SECONDS = 60.0
_HOURS = 24
_HOUR = "%Y-%m-%dT%H"

Table = dict[str, float]
"""Grams per kWh by hour: "8" for each day's, "2026-11-20T08" for one."""


class CarbonIntensity:
    """The intensity in force. Raises ConfigError for a file that cannot be read."""

    def __init__(
        self,
        grams_per_kwh: float | None = None,
        path: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed = grams_per_kwh
        self._path = path
        self._clock = clock
        self._looked_at = clock()
        self._changed_at = _changed_at(path)
        self._table = read_intensity_table(path) if path is not None else {}

    def to_grams(self, joules: float, at: float) -> float | None:
        """Return the grams of `joules` spent at Unix time `at`; None where no line covers it."""
        intensity = self._fixed if self._path is None else self._intensity_at(at)
        return None if intensity is None else joules / _JOULES_PER_KWH * intensity

    def _intensity_at(self, at: float) -> float | None:
        self._reload_if_changed()
        when = datetime.fromtimestamp(at, UTC)
        return self._table.get(when.strftime(_HOUR), self._table.get(str(when.hour)))

    def _reload_if_changed(self) -> None:
        now = self._clock()
        if self._path is None or now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        changed_at = _changed_at(self._path)
        if changed_at == self._changed_at:
            return
        self._changed_at = changed_at
        try:
            self._table = read_intensity_table(self._path)
        except ConfigError as error:
            _log.error("carbon file refused, the last good one stays: %s", error)


def read_intensity_table(path: Path) -> Table:
    """Read a file of intensities. Raises ConfigError that names the line."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    table: Table = {}
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells[0] == "hour"):
            continue
        try:
            hour, grams = cells
            value = float(grams)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError  # noqa: TRY301 - told with the others
            table[_parse_hour(hour)] = value
        except ValueError:
            raise ConfigError(
                f"{path}: line {number}: must be `hour,grams_per_kwh`, the hour 0 to 23 or a "
                "moment such as 2026-11-20T08:00 (UTC), the grams not negative"
            ) from None
    if not table:
        raise ConfigError(f"{path}: no hours in it")
    return table


def _parse_hour(hour: str) -> str:
    if hour.isdecimal():
        if int(hour) >= _HOURS:
            raise ValueError(hour)
        return str(int(hour))
    when = datetime.fromisoformat(hour)
    return (when if when.tzinfo is None else when.astimezone(UTC)).strftime(_HOUR)


def _changed_at(path: Path | None) -> tuple[int, int] | None:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_ino)
