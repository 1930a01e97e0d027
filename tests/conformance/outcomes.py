"""What each of vLLM's tests came to, kept line by line so that a stopped run goes on from there."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

TRIES = 2
BEGUN, ENDED = "begun", "ended"


def read_outcomes(log: Path, file: str = "") -> dict[str, str]:
    """Return the outcome of each test of a file, with why where there is a reason.

    A test that was begun `TRIES` times and never ended counts as stopped.
    """
    found: dict[str, str] = {}
    begun: dict[str, int] = {}
    for test, outcome, why in _read_lines(log):
        if outcome == ENDED or not _is_of(test, file):
            continue
        if outcome == BEGUN:
            begun[test] = begun.get(test, 0) + 1
        else:
            begun.pop(test, None)
            found[test] = f"{outcome}: {why}" if why else outcome
    found |= {test: "stopped: it did not end" for test, n in begun.items() if n >= TRIES}
    return found


def is_done(log: Path, file: str) -> bool:
    """Whether every test of a file has come to something."""
    return any(outcome == ENDED and test == file for test, outcome, _ in _read_lines(log))


def write_line(log: Path, test: str, outcome: str, why: str = "") -> None:
    """Add what a test came to; `ENDED` is said of a file."""
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps([test, outcome, why]) + "\n")


def forget_files(log: Path, files: Sequence[str]) -> None:
    """Drop what is known of files' tests."""
    kept = [line for line in _read_lines(log) if not any(_is_of(line[0], file) for file in files)]
    _write_lines(log, kept)


def forget_tests(log: Path, tests: Sequence[str]) -> None:
    """Drop what is known of single tests, and that their files have come to their ends."""
    files = {test.partition("::")[0] for test in tests}
    kept = [
        line
        for line in _read_lines(log)
        if line[0] not in tests and not (line[0] in files and line[1] == ENDED)
    ]
    _write_lines(log, kept)


def _is_of(test: str, file: str) -> bool:
    return file in test


def _read_lines(log: Path) -> list[list[str]]:
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    return [json.loads(line) for line in lines]


def _write_lines(log: Path, lines: Iterable[list[str]]) -> None:
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
