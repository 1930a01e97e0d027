"""A user's records: CSV (gzip too), JSON lines or a JSON list, each with its line or number.

Rules: a CSV's values are texts, blank as ""; JSON values keep their types, null as "". A file
that is not a table raises BadInput; the caller checks the values.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from calibration.tables.columns import BadInput
from calibration.tables.csv_file import GZIP_MAGIC, CsvFile

_MAX_COLUMNS_SHOWN = 12
_HEAD_BYTES = 4096


class TableRow(NamedTuple):
    """One record; `place` is its file and line, for messages."""

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RecordTable:
    """All records of one file."""

    name: str
    sha256: str
    header: list[str]
    rows: list[TableRow]

    def require_columns(self, *columns: str) -> None:
        """Raise BadInput that lists what there is where one of the columns is not there."""
        missing = [column for column in columns if column not in self.header]
        if missing:
            named = ", ".join(repr(column) for column in missing)
            have = ", ".join(self.header[:_MAX_COLUMNS_SHOWN])
            raise BadInput(f"{self.name}: no column {named}; it has: {have}")


def read_raw_bytes(path: Path) -> bytes:
    """Return a file's bytes, unpacked where it is gzip. Raises BadInput."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == GZIP_MAGIC else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None


def read_first_character(path: Path) -> str:
    """Return the first non-whitespace character, "" for an empty file. Raises BadInput."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            head = (gzip.GzipFile(fileobj=raw) if packed else raw).read(_HEAD_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    return head.decode("utf-8-sig", "replace").lstrip()[:1]


def read_table(path: Path) -> RecordTable:
    """Read a file whole. Raises BadInput."""
    opening = read_first_character(path)
    if not opening:
        raise BadInput(f"{path}: the file is empty")
    if opening in "{[":
        table = _read_json(path)
    else:
        with CsvFile(path, lambda _: None) as file:
            table = _read_csv(path, file)
    if not table.rows:
        raise BadInput(f"{path}: no rows, only a header")
    return table


def parse_json_lines(raw: bytes) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield (line number, object); None for a line that is not an object. Skips blank lines."""
    for number, line in enumerate(io.BytesIO(raw), 1):
        if line.strip():
            yield number, _parse_object(line)


def _parse_object(line: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _read_json(path: Path) -> RecordTable:
    raw = read_raw_bytes(path)
    try:
        text = raw.decode("utf-8-sig").encode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    found: list[tuple[str, Any]]
    if text.lstrip()[:1] == b"[":
        try:
            whole = msgspec.json.decode(text, type=list[Any])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadInput(f"{path}: {error}") from None
        found = [(f"{path} record {at}", one) for at, one in enumerate(whole, 1)]
    else:
        found = [(f"{path}:{at}", one) for at, one in parse_json_lines(text)]
    rows = []
    for place, one in found:
        if not isinstance(one, dict):
            raise BadInput(f"{place}: not a JSON object")
        rows.append(TableRow(place, {name: "" if v is None else v for name, v in one.items()}))
    header = list(dict.fromkeys(name for row in rows for name in row.values))
    return RecordTable(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), header, rows)


def _read_csv(path: Path, file: CsvFile) -> RecordTable:
    header = file.header
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BadInput(f"{path}: two columns are named {', '.join(map(repr, twice))}")
    rows: list[TableRow] = []
    for chunk in file.read_chunks(set(header), set(header)):
        surplus = chunk.loc[chunk["_extra"].notna(), "_row"]
        if len(surplus):
            raise BadInput(f"{path} row {surplus.iloc[0]}: more fields than the header has")
        texts = chunk[header].fillna("")
        rows += [
            TableRow(f"{path} row {number}", dict(zip(header, values, strict=True)))
            for number, values in zip(
                chunk["_row"], texts.itertuples(index=False, name=None), strict=True
            )
        ]
    return RecordTable(str(path), file.compute_sha256(), header, rows)
