"""The sums that a regression needs, per deployment, in exact integers.

Rules of this file:

- Ordinary least squares needs no rows, only sums of products. They are kept in whole tokens,
  microseconds, microjoules and, for a shared token, 1e-9 tokens; a float is made only where a
  value is shown, by one division that rounds once.
- What is shown at one moment is of the same rows throughout: one lock, and of another worker one
  file that is replaced whole. A block that shrinks is a restart to whoever reads it.
- A term spells its product: `i2o` is the sum of i*i*o, `n` the number of rows. With i prompt and
  o completion tokens, r requests running beside this one, y the cost, e our own count of i:
  z is o*r for seconds and o/(1+r) for joules.
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
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

_log = logging.getLogger("joulegate.sums")

METRIC_NAME = "joulegate_ols_sum_total"
METRIC_LABELS = ("model", "deployment", "basis", "quantity", "term")
METRIC_DOCUMENTATION = (
    "Sums of products over whole answers, for regressions on tokens and load, in base units; "
    "basis tokens, load, output, prompt; quantity seconds, joules, tokens"
)

TOKENS_TERMS = ("n", "i", "o", "io", "i2", "o2", "i2o", "io2", "i2o2", "y", "iy", "oy", "ioy", "y2")
LOAD_TERMS = (*TOKENS_TERMS, "z", "iz", "oz", "ioz", "z2", "zy")
OUTPUT_TERMS = ("n", "i", "o", "io", "i2", "o2")
PROMPT_TERMS = ("n", "e", "i", "ei", "e2", "i2")

# One row of these makes a float of the sum too coarse for every other; no model does them.
_MOST_TOKENS = 10_000_000
_MOST_MICROSECONDS = 86_400 * 10**6
_MOST_MICROJOULES = 10**15
_NANO = 10**9

Name = tuple[str, str]
"""A deployment: its model's name and its own label."""
Parts = tuple[list[int], list[int], list[int], list[int]]
"""Of one deployment: LOAD_TERMS for seconds, for joules; OUTPUT_TERMS; PROMPT_TERMS."""
_LAYOUT = "|".join(" ".join(t) for t in (LOAD_TERMS, LOAD_TERMS, OUTPUT_TERMS, PROMPT_TERMS))


class OlsSums:
    """The sums of this process; every deployment has all of its terms from the start."""

    def __init__(self, deployments: Iterable[Name]) -> None:
        self._parts = {name: make_zero_sums() for name in deployments}
        self._lock = Lock()
        self._told: set[Name] = set()
        self.rows = 0

    def add_row(
        self,
        model: str,
        deployment: str,
        *,
        tokens_in: int,
        tokens_out: int,
        running: int,
        microseconds: int,
        microjoules: int | None,
        estimated_tokens: int | None,
        truncated: bool,
    ) -> None:
        """Enter one whole answer.

        `tokens_in` and `tokens_out` are the backend's counts and `estimated_tokens` our own of the
        prompt, None where there is none; `running` leaves this request out; `microjoules` is None
        where they were not measured for it alone; `truncated` where a limit ended the answer.
        A row that cannot be (negative, or beyond any model) is left out, and logged once.
        """
        i, o = tokens_in, tokens_out
        if not (
            0 <= i <= _MOST_TOKENS
            and 0 <= o <= _MOST_TOKENS
            and 0 <= running <= _MOST_TOKENS
            and 0 <= microseconds <= _MOST_MICROSECONDS
            and (microjoules is None or 0 <= microjoules <= _MOST_MICROJOULES)
            and (estimated_tokens is None or 0 <= estimated_tokens <= _MOST_TOKENS)
        ):
            self._refuse_row((model, deployment), f"{i} and {o} tokens, {microseconds} us")
            return
        with self._lock:
            seconds, joules, output, prompt = self._parts[model, deployment]
            self.rows += 1
            _add_cost(seconds, i, o, o * running, microseconds)
            if microjoules is not None:
                shares = 1 + running
                _add_cost(joules, i, o, (2 * _NANO * o + shares) // (2 * shares), microjoules)
            if not truncated:
                _add_pair(output, i, o)
            if estimated_tokens is not None:
                _add_pair(prompt, estimated_tokens, i)

    def snapshot_sums(self) -> dict[Name, Parts]:
        """Return a copy of every sum, all of the same rows."""
        return self.snapshot_with_row_count()[1]

    def snapshot_with_row_count(self) -> tuple[int, dict[Name, Parts]]:
        """Return how many rows there are, and a copy of their sums."""
        with self._lock:
            copy = {name: (a[:], b[:], c[:], d[:]) for name, (a, b, c, d) in self._parts.items()}
            return self.rows, copy

    def _refuse_row(self, name: Name, row: str) -> None:
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
            text = json.dumps({"layout": _LAYOUT, "sums": [(*n, *p) for n, p in sums.items()]})
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
    """Shows what `total` returns: `Sums.snapshot`, or `SharedSums.total` over several workers."""

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
            for block in _BLOCKS:
                labels = (model, deployment, block.basis, block.quantity)
                for (term, unit), value in zip(block.terms, parts[block.part], strict=False):
                    family.add_metric((*labels, term), value / unit)
        yield family


class _ExportedBlock(NamedTuple):
    """What is shown of a part: its first terms, each with how many of its units make a base unit.

    A basis that needs no load shows the same sums less the last six.
    """

    basis: str
    quantity: str
    part: int
    terms: tuple[tuple[str, int], ...]


def _make_block(
    basis: str, quantity: str, part: int, terms: tuple[str, ...], y: int = 0, z: int = 0
) -> _ExportedBlock:
    """Make a block whose y and z are kept in 10^-y and 10^-z of their base unit."""
    digits = [y * _count_power(term, "y") + z * _count_power(term, "z") for term in terms]
    units = zip(terms, (10**count for count in digits), strict=True)
    return _ExportedBlock(basis, quantity, part, tuple(units))


def _count_power(term: str, letter: str) -> int:
    return 2 if f"{letter}2" in term else term.count(letter)


_BLOCKS = (
    _make_block("tokens", "seconds", 0, TOKENS_TERMS, y=6),
    _make_block("tokens", "joules", 1, TOKENS_TERMS, y=6),
    _make_block("load", "seconds", 0, LOAD_TERMS, y=6),
    _make_block("load", "joules", 1, LOAD_TERMS, y=6, z=9),
    _make_block("output", "tokens", 2, OUTPUT_TERMS),
    _make_block("prompt", "tokens", 3, PROMPT_TERMS),
)


def make_zero_sums() -> Parts:
    """Return the sums of no rows."""
    cost = [0] * len(LOAD_TERMS)
    return cost, cost[:], [0] * len(OUTPUT_TERMS), [0] * len(PROMPT_TERMS)


def _add_cost(sums: list[int], i: int, o: int, z: int, y: int) -> None:
    """Add a row's products, in the order of LOAD_TERMS; written out because a loop costs double."""
    io = i * o
    i2 = i * i
    o2 = o * o
    sums[0] += 1
    sums[1] += i
    sums[2] += o
    sums[3] += io
    sums[4] += i2
    sums[5] += o2
    sums[6] += i2 * o
    sums[7] += i * o2
    sums[8] += i2 * o2
    sums[9] += y
    sums[10] += i * y
    sums[11] += o * y
    sums[12] += io * y
    sums[13] += y * y
    sums[14] += z
    sums[15] += i * z
    sums[16] += o * z
    sums[17] += io * z
    sums[18] += z * z
    sums[19] += z * y


def _add_pair(sums: list[int], a: int, b: int) -> None:
    """Add a row's products, in the order of OUTPUT_TERMS and PROMPT_TERMS."""
    sums[0] += 1
    sums[1] += a
    sums[2] += b
    sums[3] += a * b
    sums[4] += a * a
    sums[5] += b * b


def _read_worker_sums(path: Path) -> Iterator[tuple[Name, list[list[int]]]]:
    """Return what a worker has written. Raises OSError; what no worker of ours wrote is empty."""
    try:
        found = json.loads(path.read_bytes())
        rows = found["sums"] if found["layout"] == _LAYOUT else []
    except (ValueError, TypeError, KeyError):
        return
    for model, deployment, *parts in rows:
        yield (model, deployment), parts
