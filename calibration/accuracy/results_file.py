"""The results file of a graded run: JSON lines, one an answer, appended safely.

A killed run leaves at most an incomplete last line, which the next run truncates; nothing else is
ever changed. A line belongs to a `run` (what decides the answers: questions aside, the settings),
so that a file holds several and each resumes by itself.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from calibration.tables.columns import BadInput
from calibration.tables.file_lock import lock_file

_SYNC_PERIOD_SECONDS: Final = 1.0


class GradedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a model; `refused` holds the server's words where it will not answer."""

    run: str
    model: str
    question: str
    sample: int
    text: str = ""
    found: str | None = None
    correct: bool = False
    finish: str | None = None
    refused: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    at: str = ""

    @property
    def answer_key(self) -> tuple[str, str, int]:
        """What is answered once only in a run."""
        return self.model, self.question, self.sample


def compute_run_id(settings: dict[str, Any]) -> str:
    """Return the name of a run with these settings."""
    encoded = msgspec.json.encode(settings, order="sorted")
    return hashlib.sha256(encoded).hexdigest()[:12]


class ResultsFile:
    """The file, open for appending by one process at a time; `answers` is what it held."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.answers: list[GradedAnswer] = []
        self.truncated_bytes = 0
        self._descriptor = descriptor
        self._synced = time.monotonic()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create. Raises BadInput (the file is then untouched) and OSError."""
        if path.suffix == ".gz":
            raise BadInput(f"{path}: lines cannot be appended safely to gzip; drop the .gz")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        results = cls(path, descriptor)
        try:
            # A second run would ask everything twice.
            lock_file(path, descriptor, BadInput)
            results._load_answers()
        except BaseException:
            os.close(descriptor)
            raise
        return results

    def append_answer(self, given: GradedAnswer) -> None:
        """Add one line; it is with the operating system on return, on disk within a second."""
        line = msgspec.json.encode(given) + b"\n"
        while line:  # a full disk may take a part; what is missing then raises on the next round
            line = line[os.write(self._descriptor, line) :]
        if time.monotonic() - self._synced >= _SYNC_PERIOD_SECONDS:
            self._sync_to_disk()

    def close(self) -> None:
        """Sync and close."""
        try:
            self._sync_to_disk()
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sync_to_disk(self) -> None:
        os.fsync(self._descriptor)
        self._synced = time.monotonic()

    def _load_answers(self) -> None:
        raw = self.path.read_bytes()
        whole, newline, half = raw.rpartition(b"\n")
        for number, line in enumerate((whole + newline).split(b"\n"), 1):
            if line.strip():
                try:
                    self.answers.append(msgspec.json.decode(line, type=GradedAnswer))
                except msgspec.MsgspecError as error:
                    raise BadInput(
                        f"{self.path}:{number}: not a results file of `joulegate accuracy`: {error}"
                    ) from None
        if half and not (self.answers or half.startswith(b'{"run":')):
            raise BadInput(f"{self.path}: not a results file of `joulegate accuracy`")
        if half:
            os.ftruncate(self._descriptor, len(raw) - len(half))
            self.truncated_bytes = len(half)
