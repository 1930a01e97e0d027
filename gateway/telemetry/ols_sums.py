"""The sums that a regression needs, per deployment, in exact integers.

Rules of this file:

- Least squares needs no rows, only sums of products; `gateway.scheduling.regression_terms` has
  their names and says what each is. They are kept in whole tokens, microseconds, microjoules, 1e-6
  requests of load, 1e-9 of a shared token or a logarithm, and weights of 1e-15 per square of a
  base unit; a float is made only where a value is shown, by one division that rounds once.
- What is shown at one moment is of the same rows throughout: one lock, and of another worker one
  file that is replaced whole. A block that shrinks is a restart to whoever reads it.
- A row whose live prediction was floored is counted and left out of that cost: it has no weight.
- Several workers add up from files, whole numbers all the way. Only files are shown then, so that
  no worker shows more than another that is asked later; those of the dead stay.
"""

import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from gateway.scheduling.regression_terms import TERMS
from gateway.telemetry.sums_row import LAYOUT, PARTS, UNITS, Parts, SumsRow, add_row, make_zero_sums

_log = logging.getLogger("joulegate.sums")

METRIC_NAME = "joulegate_ols_sum_total"
METRIC_LABELS = ("model", "deployment", "basis", "quantity", "term")
METRIC_DOCUMENTATION = (
    "Sums of products over whole answers, for regressions on tokens and load and for lengths, in "
    "base units; basis costs, rows, metered, output, prompt; quantity seconds, joules, tokens"
)

Name = tuple[str, str]
"""A deployment: its model's name and its own label."""


class OlsSums:
    """The sums of this process; every deployment has all of its terms from the start."""

    def __init__(self, deployments: Iterable[Name]) -> None:
        self._parts = {name: make_zero_sums() for name in deployments}
        self._lock = Lock()
        self._told: set[Name] = set()
        self.rows = 0

    def add_deployments(self, deployments: Iterable[Name]) -> None:
        """Have these too; those that there are go on."""
        with self._lock:
            for name in deployments:
                if name not in self._parts:
                    self._parts[name] = make_zero_sums()

    def add_row(self, model: str, deployment: str, row: SumsRow) -> None:
        """Enter one whole answer; a row that cannot be is left out, and logged once."""
        if not row.is_plausible:
            self._refuse_row((model, deployment), row)
            return
        with self._lock:
            self.rows += 1
            add_row(self._parts[model, deployment], row)

    def snapshot_sums(self) -> dict[Name, Parts]:
        """Return a copy of every sum, all of the same rows."""
        return self.snapshot_with_row_count()[1]

    def snapshot_with_row_count(self) -> tuple[int, dict[Name, Parts]]:
        """Return how many rows there are, and a copy of their sums."""
        with self._lock:
            copy = {name: tuple(part[:] for part in parts) for name, parts in self._parts.items()}
            return self.rows, copy

    def _refuse_row(self, name: Name, row: SumsRow) -> None:
        if name not in self._told:
            self._told.add(name)
            _log.warning("%s (%s) left out of the regression sums: %s", *name, row)


class SharedSums:
    """The sums of every worker of this machine, each in a file of its own in `folder`."""

    def __init__(self, sums: OlsSums, folder: Path) -> None:
        self._sums = sums
        self._folder = folder
        # Process ids come again; what one of the dead has left must stay.
        self._path = folder / f"ols_{os.getpid()}_{secrets.token_hex(4)}.json"
        self._lock = Lock()
        self._written = 0
        self._broken = False

    def write_sums(self) -> None:
        """Put this worker's sums where the others find them, if there is anything new.

        To be called now and then, and once more before the process ends. A disk that is full
        leaves the last file as it was, and a line in the log.
        """
        with self._lock:
            rows, sums = self._sums.snapshot_with_row_count()
            if rows == self._written:
                return
            text = json.dumps({"layout": LAYOUT, "sums": [(*n, *p) for n, p in sums.items()]})
            fresh = self._path.with_suffix(".tmp")
            try:
                fresh.write_text(text, encoding="ascii")
                fresh.replace(self._path)
            except OSError as error:
                if not self._broken:
                    _log.error("regression sums: %s: %s", self._path, error.strerror)
                self._broken = True
            else:
                self._written, self._broken = rows, False

    def sum_workers(self) -> dict[Name, Parts]:
        """Write, then return the sum over the workers, dead ones included. Raises OSError."""
        self.write_sums()
        total = {name: make_zero_sums() for name in self._sums.snapshot_sums()}
        for path in self._folder.glob("ols_*.json"):
            for name, parts in _read_worker_sums(path):
                # A model of an earlier configuration has no place among today's labels.
                for mine, theirs in zip(total.get(name, ()), parts, strict=False):
                    mine[:] = map(int.__add__, mine, theirs)
        return total


class SumsCollector(Collector):
    """Exposes what `total` returns: `OlsSums.snapshot_sums` or `SharedSums.sum_workers`."""

    def __init__(self, total: Callable[[], dict[Name, Parts]]) -> None:
        self._total = total

    def collect(self) -> Iterable[Metric]:
        """Return the family; nothing at all where a worker's file cannot be read just now.

        A gap is harmless; a sum without one of the workers would look like a restart.
        """
        try:
            total = self._total()
        except OSError as error:
            _log.error("regression sums are not shown: %s", error)
            return
        family = CounterMetricFamily(METRIC_NAME, METRIC_DOCUMENTATION, labels=METRIC_LABELS)
        for (model, deployment), parts in total.items():
            for (basis, quantity), units, values in zip(PARTS, UNITS, parts, strict=True):
                labels = (model, deployment, basis, quantity)
                for term, unit, value in zip(TERMS[basis], units, values, strict=True):
                    family.add_metric((*labels, term), value / unit)
        yield family


def _read_worker_sums(path: Path) -> Iterator[tuple[Name, list[list[int]]]]:
    """Return what a worker has written. Raises OSError; what no worker of ours wrote is empty."""
    try:
        found = json.loads(path.read_bytes())
        rows = found["sums"] if found["layout"] == LAYOUT else []
    except (ValueError, TypeError, KeyError):
        return
    for model, deployment, *parts in rows:
        yield (model, deployment), parts
