"""What each of vLLM's tests came to, kept line by line so that a stopped run goes on from there."""

import json
from pathlib import Path

TRIES = 2
DONE = "done"


def read_outcomes(log: Path) -> dict[str, str]:
    """Return each test's outcome, with why where there is a reason.

    A test that was begun `TRIES` times and never ended counts as stopped.
    """
    found: dict[str, str] = {}
    begun: dict[str, int] = {}
    for line in log.read_text("utf-8").splitlines() if log.exists() else []:
        test, outcome, why = json.loads(line)
        if outcome == "begun":
            begun[test] = begun.get(test, 0) + 1
        else:
            begun.pop(test, None)
            found[test] = f"{outcome}: {why}" if why else outcome
    found |= {test: "stopped: it did not end" for test, n in begun.items() if n >= TRIES}
    return found


def is_done(log: Path) -> bool:
    """Whether every test of the file has come to something."""
    return log.with_suffix(f".{DONE}").exists()


def mark_done(log: Path) -> None:
    """Note that the file was run to its end."""
    log.with_suffix(f".{DONE}").touch()
