"""One CSV file, plain or gzip, read in pieces: header, separator, hash and progress in one pass.

pyarrow parses. It hands over each row that has not as many fields as the header: a short one is
filled up with blanks, a long one keeps its surplus in `_extra`; none is left out.
"""

import codecs
import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from calibration.tables.columns import BadInput

_BLOCK_BYTES: Final = 8 << 20
_MAX_FIELD_CHARS = 131_072
"""A piece; no row may be longer."""
_MAX_HEADER_BYTES: Final = 1 << 20
GZIP_MAGIC: Final = b"\x1f\x8b"
_END_MARK: Final = "joulegate-end-of-file"
_EXTRA: Final = "extra"
_NO_ROW: Final = f"a quote is not closed, or a row is longer than {_BLOCK_BYTES >> 20} MiB"


class _HashingFile(io.RawIOBase):
    """A file that hashes what passes and reports how much."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        self._file = path.open("rb", buffering=0)
        self._on_bytes = on_bytes
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int | None:
        view = memoryview(cast("bytearray", buffer))
        got = self._file.readinto(view)
        self.hash.update(view[:got])
        self._on_bytes(got or 0)
        return got

    def close(self) -> None:
        self._file.close()
        super().close()


class _Utf8Stream(io.RawIOBase):
    """A file's rest as valid UTF-8, with one more row at its end: `end_row`."""

    def __init__(self, body: BinaryIO, end_row: str) -> None:
        self._body = body
        self._end_row = end_row
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._ended = False
        self._ready = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = _BLOCK_BYTES, /) -> bytes:
        # Filled up to its size, since no row may reach over two blocks.
        while len(self._ready) < size and not self._ended:
            raw = self._body.read(size)
            self._ended = not raw
            text = self._decoder.decode(raw, final=self._ended)
            self._ready += (text + (f"\n{self._end_row}\n" if self._ended else "")).encode()
        block, self._ready = self._ready[:size], self._ready[size:]
        return block


class _UnevenRows:
    """The rows that have not as many fields as the header, by their number (from 1)."""

    def __init__(self, separator: str, columns: int) -> None:
        self.end_row = separator * columns + _END_MARK
        self.end_seen = False
        """Whether the row after the file's last was recognised; not so inside of a quote."""
        self.texts: dict[int, str] = {}
        self._separator = separator
        self._columns = columns

    def keep_row(self, row: Any) -> str:
        """Keep a row that pyarrow cannot place (its `invalid_row_handler`)."""
        if row.text == self.end_row:
            self.end_seen = True
        else:
            self.texts[row.number] = row.text
        return "skip"

    def take_row(self, number: int) -> list[str | None] | None:
        """Return a row's fields and its surplus, blanks as None; None for a blank line.

        Raises csv.Error.
        """
        text = self.texts.pop(number)
        if not text.strip():
            return None
        fields = next(csv.reader(io.StringIO(text, newline=""), delimiter=self._separator))
        # The csv module's own limit is the process's: who read prompts before may have moved it.
        if max(map(len, fields), default=0) > _MAX_FIELD_CHARS:
            raise csv.Error(f"field larger than field limit ({_MAX_FIELD_CHARS})")
        surplus = self._separator.join(fields[self._columns :])
        filled = fields[: self._columns] + [""] * (self._columns - len(fields))
        return [field or None for field in (*filled, surplus)]


class CsvFile:
    """An open file; a context manager. Raises BadInput for what cannot be read as CSV."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        self._path = path
        try:
            self._hashing_file = _HashingFile(path, on_bytes)
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}") from None
        self._raw = io.BufferedReader(self._hashing_file, 1 << 18)
        self._body: BinaryIO = self._raw
        try:
            if self._raw.peek(2)[:2] == GZIP_MAGIC:
                self._body = cast("BinaryIO", gzip.GzipFile(fileobj=self._raw))
            line = self._body.readline(_MAX_HEADER_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            self._raw.close()
            raise BadInput(f"{path}: cannot be read: {error}") from None
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self._raw.close()
            raise BadInput(f"{path}: UTF-16 text; save it as CSV UTF-8")
        text = line.decode("utf-8-sig", errors="replace").strip("\r\n")
        if not text.strip():
            self._raw.close()
            raise BadInput(f"{path}: the file is empty" if not line else f"{path}: no header line")
        self._separator = max(",\t;", key=text.count)
        self.header = [name.strip() for name in next(csv.reader([text], delimiter=self._separator))]

    def read_chunks(self, wanted: set[str], texts: set[str]) -> Iterator[pd.DataFrame]:
        """Yield the columns `wanted`, those in `texts` as text, blanks as NaN.

        Other columns are numbers where every value of the piece is one, else text. `_extra` holds
        what stands in a row after the last column of the header; `_row` counts rows from 1. Raises
        BadInput.
        """
        places = {name: self.header.index(name) for name in self.header if name in wanted}
        row = 1
        try:
            for table in self._read_tables([*places.values()]):
                columns = {name: table.column(str(place)) for name, place in places.items()}
                chunk = pd.DataFrame(
                    {
                        name: (column if name in texts else _parse_numbers(column)).to_pandas()
                        for name, column in columns.items()
                    }
                )
                chunk["_extra"] = table.column(_EXTRA).to_pandas()
                chunk["_row"] = np.arange(row, row + len(chunk))
                row += len(chunk)
                yield chunk
        except (csv.Error, OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{self._path}: cannot be read: {error}") from None
        except pa.ArrowInvalid as error:
            raise BadInput(f"{self._path}: cannot be read: {_NO_ROW}: {error}") from None

    def _read_tables(self, places: list[int]) -> Iterator[pa.Table]:
        """Yield the columns at these places and the surplus, all of them text."""
        uneven = _UnevenRows(self._separator, len(self.header))
        names = [str(place) for place in range(len(self.header))]
        with arrow_csv.open_csv(
            _Utf8Stream(self._body, uneven.end_row),
            # Rows have numbers in one thread only.
            read_options=arrow_csv.ReadOptions(
                column_names=names, block_size=_BLOCK_BYTES, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=self._separator,
                newlines_in_values=True,
                invalid_row_handler=uneven.keep_row,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                include_columns=[str(place) for place in places],
            ),
        ) as reader:
            number = 1
            for batch in reader:
                table = pa.table(batch).append_column(_EXTRA, pa.nulls(len(batch), pa.string()))
                order: list[int] = []
                rows: list[list[str | None]] = []
                while uneven.texts and len(order) - len(rows) < len(batch):
                    if number not in uneven.texts:
                        order.append(len(order) - len(rows))
                    elif (fields := uneven.take_row(number)) is not None:
                        order.append(len(batch) + len(rows))
                        rows.append(fields)
                    number += 1
                left = range(len(order) - len(rows), len(batch))
                number += len(left)
                if rows:
                    whole = pa.concat_tables([table, _build_table(rows, places)])
                    table = whole.take([*order, *left])
                yield table
        last = [fields for at in sorted(uneven.texts) if (fields := uneven.take_row(at))]
        if last:
            yield _build_table(last, places)
        if not uneven.end_seen:
            raise BadInput(f"{self._path}: cannot be read: a quote is not closed")

    def compute_sha256(self) -> str:
        """Return the hash of the file as it lies there, whatever of it was needed."""
        while self._raw.read(1 << 20):
            pass
        return self._hashing_file.hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._body.close()
        self._raw.close()


def _build_table(rows: list[list[str | None]], places: list[int]) -> pa.Table:
    """Return rows that were told apart here as pyarrow would; the last field is the surplus."""
    names = {**{str(place): place for place in places}, _EXTRA: -1}
    return pa.table(
        {name: pa.array([row[at] for row in rows], pa.string()) for name, at in names.items()}
    )


def _parse_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as numbers; as it is where one of its values is none."""
    try:
        numbers = pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        return column
    return column if pc.any(pc.is_nan(numbers)).as_py() else numbers
