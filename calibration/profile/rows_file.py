"""One measured request is one row of a CSV file: its columns, safe appending, and reading back.

A row is one line and is written by one append, so a killed run leaves at most an incomplete
last line, which the next `MeasurementLog` truncates. Nothing else is ever changed in the file.
"""

import csv
import gzip
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from calibration.tables.file_lock import lock_file

METHODS: Final = ("exclusive", "apportioned", "coarse", "estimated", "simulated", "")
_FSYNC_SECONDS: Final = 1.0
_TAIL_BYTES: Final = 1 << 16


class RowsFileError(ValueError):
    """A file of rows that cannot be read or appended to; the message says where and why."""


class MeasurementRow(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it was measured; None is what was not measured (an empty field).

    `tokens_out` counts new tokens only; `tiktoken_in` is what the gateway would count for the
    prompt; `running` is how many other requests were in flight at dispatch (as the gateway counts
    when it predicts), `waiting` how many of them the server's gauge last showed as queued; `method`
    says how the joules were measured; `at` is the time of dispatch, ISO 8601 in UTC.
    """

    run: str
    cell: str
    block: int
    repeat: int
    request_id: str
    model: str
    backend: str
    tokens_in: int
    tokens_out: int
    cached_tokens: int | None
    tiktoken_in: int | None
    seconds: float
    ttft_seconds: float | None
    joules: float | None
    method: str
    running: int | None
    waiting: int | None
    concurrency: int
    hardware: str
    engine: str
    at: str


COLUMNS: Final[tuple[str, ...]] = MeasurementRow.__struct_fields__


def _parse_count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("is not a whole number of 0 or more")
    return int(text)


def _parse_real(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is not a number") from None
    if not isfinite(value) or value < 0:
        raise ValueError("is not a finite number of 0 or more")
    return value


def _make_optional(parse: Callable[[str], float]) -> Callable[[str], float | None]:
    return lambda text: parse(text) if text else None


def _parse_method(text: str) -> str:
    if text not in METHODS:
        raise ValueError(f"is not one of {', '.join(filter(None, METHODS))}, or empty")
    return text


_PARSE: Final[dict[str, Callable[[str], object]]] = {
    **dict.fromkeys(COLUMNS, str),
    **dict.fromkeys(("block", "repeat", "tokens_in", "tokens_out", "concurrency"), _parse_count),
    **dict.fromkeys(
        ("cached_tokens", "tiktoken_in", "running", "waiting"), _make_optional(_parse_count)
    ),
    **dict.fromkeys(("ttft_seconds", "joules"), _make_optional(_parse_real)),
    "seconds": _parse_real,
    "method": _parse_method,
}


def _format_line(values: Iterable[object]) -> bytes:
    """One CSV line; a line break inside a text becomes a space, so that a row stays a line."""
    texts = [
        "" if value is None else repr(value) if isinstance(value, float) else str(value)
        for value in values
    ]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([" ".join(t.splitlines()) for t in texts])
    return buffer.getvalue().encode("utf-8", "replace")


HEADER: Final = _format_line(COLUMNS)


def read_measurements(path: Path) -> Iterator[MeasurementRow]:
    """Yield the rows of a file, gzip too, one at a time.

    Raises RowsFileError naming file, line and column; OSError where the file cannot be opened.
    """
    with path.open("rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        plain = gzip.GzipFile(fileobj=raw) if packed else raw
        with io.TextIOWrapper(plain, encoding="utf-8", newline="") as text:
            rows = csv.reader(text, strict=True)
            try:
                if (header := next(rows, None)) != list(COLUMNS):
                    raise RowsFileError(_describe_wrong_header(path, header))
                for row in rows:
                    yield _parse_row(row, f"{path}:{rows.line_num}")
            except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
                raise RowsFileError(f"{path}:{rows.line_num + 1}: {error}") from None


def _describe_wrong_header(path: Path, header: list[str] | None) -> str:
    if header is None:
        return f"{path}: is empty"
    missing = [name for name in COLUMNS if name not in header]
    what = f"no column {missing[0]!r}" if missing else "columns in another order, or others besides"
    return f"{path}: not a file of `joulegate profile`: {what}"


def _parse_row(row: list[str], where: str) -> MeasurementRow:
    if len(row) != len(COLUMNS):
        raise RowsFileError(f"{where}: {len(row)} fields, expected {len(COLUMNS)}")
    values: dict[str, object] = {}
    for name, text in zip(COLUMNS, row, strict=True):
        try:
            values[name] = _PARSE[name](text)
        except ValueError as error:
            raise RowsFileError(f"{where}: column {name}: {text!r} {error}") from None
    return MeasurementRow(**values)  # type: ignore[arg-type]


class MeasurementLog:
    """A file of rows open for appending, by one process at a time."""

    def __init__(self, path: Path, descriptor: int, cut_bytes: int) -> None:
        self.path = path
        self.cut_bytes = cut_bytes
        """Size of the incomplete last line that was truncated on opening."""
        self.appended = 0
        self._descriptor = descriptor
        self._synced = time.monotonic()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create. Raises RowsFileError (the file is then untouched) and OSError."""
        if path.suffix == ".gz":
            raise RowsFileError(f"{path}: rows cannot be appended safely to gzip; drop the .gz")
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags, 0o644)
        try:
            # Rows of two runs would interleave, and cells be measured twice.
            lock_file(path, descriptor, RowsFileError)
            log = cls(path, descriptor, _repair_tail(path, descriptor))
            if not os.fstat(descriptor).st_size:
                log._write_bytes(HEADER)
        except BaseException:
            os.close(descriptor)
            raise
        return log

    def append_row(self, observation: MeasurementRow) -> None:
        """Add one row; it is with the operating system on return and on disk within a second."""
        self._write_bytes(_format_line(getattr(observation, name) for name in COLUMNS))
        self.appended += 1
        if time.monotonic() - self._synced >= _FSYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Have everything on disk."""
        os.fsync(self._descriptor)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close."""
        try:
            self.sync()
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write_bytes(self, line: bytes) -> None:
        while line:  # a full disk may take a part; what is missing then raises on the next round
            line = line[os.write(self._descriptor, line) :]


def _repair_tail(path: Path, descriptor: int) -> int:
    """Check the header and truncate an incomplete last line; return the bytes truncated."""
    size = os.fstat(descriptor).st_size
    head = os.pread(descriptor, len(HEADER), 0)
    if head != HEADER:
        if HEADER.startswith(head):  # killed while the header was being written, or empty
            os.ftruncate(descriptor, 0)
            return len(head)
        with path.open("rb") as file:
            first = file.readline(_TAIL_BYTES).decode("utf-8", "replace")
        raise RowsFileError(_describe_wrong_header(path, next(csv.reader([first]))))
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
    return size - end
