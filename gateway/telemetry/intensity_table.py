"""A file of grid intensities: grams of CO2e a kilowatt-hour, by moment or by time of day.

CSV, `hour,grams_per_kwh`, all times UTC. A line is for a moment (2026-11-20T08:00) or for each day
(8, or 08:30), and holds until the next of its kind, an hour at most; a moment's line counts before
the day's. A time given twice is an error, and so is a decimal comma. Excel's byte-order mark,
carriage returns and semicolons are taken as they come.
"""

import csv
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.bounded_file import read_bounded_file
from gateway.structured import ConfigError

_MOST_BYTES: Final = 16 * 1024 * 1024
_HOUR_SECONDS: Final = 3600
_DAY_SECONDS: Final = 86_400
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_DECIMAL_COMMA = re.compile(r"[0-9]+,[0-9]+")
_TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3])(?::([0-5][0-9]))?")
_DELIMITERS: Final = ";\t,"


class IntensityTable:
    """Grams per kWh by the second at which they begin: of the day, and of Unix time."""

    def __init__(self, daily: Mapping[int, float], dated: Mapping[int, float]) -> None:
        self._daily = dict(daily)
        self._daily_starts = sorted(daily)
        self._dated = dict(dated)
        self._dated_starts = sorted(dated)

    def find_grams_per_kwh(self, at: float) -> float | None:
        """Return the intensity at Unix time `at`; None where no line covers it."""
        start = _find_start(self._dated_starts, at)
        if start is not None:
            return self._dated[start]
        start = _find_start(self._daily_starts, at % _DAY_SECONDS)
        return None if start is None else self._daily[start]


def _find_start(starts: list[int], at: float) -> int | None:
    place = bisect_right(starts, at)
    if place == 0 or at - starts[place - 1] >= _HOUR_SECONDS:
        return None
    return starts[place - 1]


def read_intensity_table(path: Path) -> IntensityTable:
    """Read a file of intensities. Raises ConfigError that names the line."""
    try:
        text = read_bounded_file(path, _MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as CSV UTF-8") from None
    daily: dict[int, float] = {}
    dated: dict[int, float] = {}
    lines: dict[tuple[bool, int], int] = {}
    for number, cells in _read_rows(text, path):
        try:
            of_day, start = _parse_start(cells[0])
            grams = _parse_grams(cells)
        except ValueError as error:
            raise ConfigError(f"{path}: line {number}: {error}") from None
        earlier = lines.setdefault((of_day, start), number)
        if earlier != number:
            raise ConfigError(
                f"{path}: line {number}: {cells[0]} is on line {earlier} too; where clocks were "
                "put back, write the moments in UTC"
            )
        (daily if of_day else dated)[start] = grams
    if not lines:
        raise ConfigError(f"{path}: no hours in it")
    return IntensityTable(daily, dated)


def _read_rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Return the lines that say something, by their numbers, without a header."""
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    # Where there is a semicolon, a comma is a decimal one.
    delimiter = next((one for one in _DELIMITERS if one in first), ",")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begun = False
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            is_header = not begun and not any(letter.isdigit() for letter in cells[0])
            begun = True
            if not is_header:
                yield reader.line_num, cells
    except csv.Error as error:
        raise ConfigError(f"{path}: line {reader.line_num}: {error}") from None


def _parse_start(time: str) -> tuple[bool, int]:
    """Return whether it is a time of each day, and the second at which it begins."""
    if clock := _TIME_OF_DAY.fullmatch(time):
        return True, int(clock[1]) * _HOUR_SECONDS + int(clock[2] or 0) * 60
    try:
        when = datetime.fromisoformat(time)
    except ValueError:
        raise ValueError(
            f"{time[:40]!r} is no time: write an hour (0 to 23), a time of day such as 08:30 or a "
            "moment such as 2026-11-20T08:00, all UTC"
        ) from None
    return False, int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def _parse_grams(cells: list[str]) -> float:
    _, *values = cells
    if len(values) == 1 and _NUMBER.fullmatch(values[0]):
        return float(values[0])
    shown = ",".join(values)
    if _DECIMAL_COMMA.fullmatch(shown):
        raise ValueError(f"{shown!r} has a decimal comma; write {shown.replace(',', '.')}")
    if len(values) != 1:
        raise ValueError("must be `hour,grams_per_kwh`, two cells")
    raise ValueError(
        f"{values[0][:40]!r} is no number of grams: write one such as 212.5, not negative"
    )
