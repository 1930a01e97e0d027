"""The cells of a long run, kept in a file as they end, so that it goes on where it was stopped.

A line of JSON a cell. Cells of another number of requests, or of another gateway, are not this
run's and are asked anew.
"""

import json
from collections import Counter
from pathlib import Path

from tests.faults.cells import CellResult, Fate


class KeptCells:
    """What became of the cells of one gateway; without a file only of this run."""

    def __init__(self, path: Path | None, gateway: str, requests: int) -> None:
        self._path = path
        self._run = {"gateway": gateway, "requests": requests}
        self.results: dict[str, CellResult] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(json.loads(line))

    def add(self, cell: str, result: CellResult) -> None:
        """Keep what became of a cell."""
        self.results[cell] = result
        if self._path is None:
            return
        kept = self._run | {
            "cell": cell,
            "fates": result.fates,
            "examples": result.examples,
            "slowest_seconds": result.slowest_seconds,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(kept) + "\n")

    def _take(self, kept: dict[str, object]) -> None:
        if {name: kept.get(name) for name in self._run} != self._run:
            return
        fates, examples = kept["fates"], kept["examples"]
        assert isinstance(fates, dict)
        assert isinstance(examples, dict)
        self.results[str(kept["cell"])] = CellResult(
            Counter({Fate(fate): int(count) for fate, count in fates.items()}),
            {Fate(fate): str(said) for fate, said in examples.items()},
            float(str(kept["slowest_seconds"])),
        )


def name_cell(kind: str, scope: str, *, stream: bool) -> str:
    """Return what a cell is called."""
    return f"{kind}, {scope}, {'stream' if stream else 'unary'}"
