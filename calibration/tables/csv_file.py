"""One CSV file, plain or gzip, read in pieces: header, separator, hash and progress in one pass."""

import csv
import gzip
import hashlib
import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

import numpy as np
import pandas as pd

from calibration.tables.columns import BadInput

_CHUNK_ROWS = 100_000
_MAX_HEADER_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_SKIPPED_LINE_PATTERN = re.compile(r"Skipping line (\d+)")


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
            if self._raw.peek(2)[:2] == _GZIP_MAGIC:
                self._body = cast("BinaryIO", gzip.GzipFile(fileobj=self._raw))
            line = self._body.readline(_MAX_HEADER_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            self._raw.close()
            raise BadInput(f"{path}: cannot be read: {error}") from None
        text = line.decode("utf-8-sig", errors="replace").strip("\r\n")
        if not text.strip():
            self._raw.close()
            raise BadInput(f"{path}: the file is empty" if not line else f"{path}: no header line")
        self.skipped_rows: list[int] = []
        """Data rows (from 1) that have more fields than could be told apart."""
        self._separator = max(",\t;", key=text.count)
        self.header = [name.strip() for name in next(csv.reader([text], delimiter=self._separator))]

    def read_chunks(self, wanted: set[str], texts: set[str]) -> Iterator[pd.DataFrame]:
        """Yield the columns `wanted`, those in `texts` as text, blanks as NaN.

        `_extra` holds what stands in a row after the last column of the header, and `_row` counts
        rows from 1; lines with still more fields are left out and numbered in `skipped`.
        """
        names = [name if name in wanted else f"_{at}" for at, name in enumerate(self.header)]
        numbers = wanted - texts
        row = 1
        try:
            # No usecols: with it pandas drops surplus fields without a word, and what an unquoted
            # comma has shifted would be taken for measurements.
            with pd.read_csv(
                self._body,
                sep=self._separator,
                header=None,
                names=[*names, "_extra"],
                dtype={name: str for name in (*names, "_extra") if name not in numbers},
                keep_default_na=False,
                na_values=[""],
                index_col=False,
                chunksize=_CHUNK_ROWS,
                low_memory=False,
                encoding_errors="replace",
                on_bad_lines="warn",
            ) as reader:
                while (chunk := self._read_chunk(reader)) is not None:
                    chunk = chunk[[*wanted, "_extra"]].copy()
                    chunk["_row"] = np.arange(row, row + len(chunk))
                    row += len(chunk)
                    yield chunk
        except pd.errors.EmptyDataError:
            return
        except (pd.errors.ParserError, OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{self._path}: cannot be read: {str(error).strip()}") from None

    def _read_chunk(self, reader: Iterator[pd.DataFrame]) -> pd.DataFrame | None:
        """Read a piece; lines that pandas skips come as warnings."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            chunk = next(reader, None)
        for warning in caught:
            lines = _SKIPPED_LINE_PATTERN.findall(str(warning.message))
            if not lines:
                raise BadInput(f"{self._path}: {str(warning.message).strip()}")
            self.skipped_rows += [int(line) for line in lines]
        return chunk

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
