"""From raw samples of the gateways' sums to what each scrape interval added to them.

    samples -> (per deployment, block, instance) scrapes -> differences -> Block

Rules:
- An instance is every label but those that name the sum; its series are scraped together, so a
  scrape is one timestamp. A scrape that lacks a term of the block is left out, and counted.
- What is added between two scrapes is a difference of raw samples, never `increase()`. Where any
  term of a block falls, the whole block began again: what it shows then counts from 0. What an
  instance showed at its first scrape in the window was earlier, and does not count.
- Every term is a sum of products of numbers that are not negative. What no such rows can give is a
  fault, and a block with a fault is not to be fitted: negative values, a term that stands still
  while one that needs it moves, (sum of v)² above n times (sum of v²).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from calibration.recalibrate.prometheus import SampleSeries

Floats = NDArray[np.float64]

SUMS_METRIC = "joulegate_ols_sum_total"
TOKENS, LOAD, OUTPUT, PROMPT = "tokens", "load", "output", "prompt"
_COSTS = ("n", "i", "o", "io", "i2", "o2", "i2o", "io2", "i2o2", "y", "iy", "oy", "ioy", "y2")
TERMS = {
    TOKENS: _COSTS,
    LOAD: (*_COSTS, "z", "iz", "oz", "ioz", "z2", "zy"),
    OUTPUT: ("n", "i", "o", "io", "i2", "o2"),
    PROMPT: ("n", "e", "i", "ei", "e2", "i2"),
}
"""The terms of each block, by basis: sums of products of tokens in (i), tokens out (o), cost (y),
the load's column (z) and the gateway's own count of the prompt (e)."""

_SUM_LABELS = frozenset({"__name__", "model", "deployment", "basis", "quantity", "term"})
_VARIABLES = "eiozy"
_EPS = float(np.finfo(float).eps)
_SLACK = 1e-9
_STUCK_REQUESTS = 10
_OUTRUN_REQUESTS = 100
_OUTRUN_SCRAPES = 10


@dataclass(frozen=True, slots=True)
class SumFault:
    """Why sums cannot be what they say: the gate's name, the instance, and what was seen."""

    gate: str
    instance: str
    seen: str

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.seen} ({self.instance})"


@dataclass(frozen=True, slots=True)
class SumBlock:
    """What was added to one block; `clusters` has a row per scrape interval that saw requests."""

    basis: str
    clusters: Floats
    """G x terms, in base units, in the order of TERMS[basis]."""
    instances: int = 0
    scrapes: int = 0
    resets: int = 0
    incomplete: int = 0
    """Scrapes left out because a term was missing."""
    faults: tuple[SumFault, ...] = ()

    def get_term(self, term: str) -> Floats:
        """Return what each scrape interval added to a term."""
        return self.clusters[:, TERMS[self.basis].index(term)]

    def sum_term(self, term: str) -> float:
        """Return what was added to a term over all instances and scrapes."""
        return float(self.get_term(term).sum())

    @property
    def n(self) -> int:
        """Requests."""
        return round(self.sum_term("n"))


def create_empty_block(basis: str) -> SumBlock:
    """Return the block that saw nothing."""
    return SumBlock(basis, np.zeros((0, len(TERMS[basis]))))


def merge_blocks(blocks: Sequence[SumBlock]) -> SumBlock:
    """Add blocks of one basis (instances, or deployments that share a profile)."""
    return replace(
        blocks[0],
        clusters=np.vstack([one.clusters for one in blocks]),
        instances=sum(one.instances for one in blocks),
        scrapes=sum(one.scrapes for one in blocks),
        resets=sum(one.resets for one in blocks),
        incomplete=sum(one.incomplete for one in blocks),
        faults=tuple(fault for one in blocks for fault in one.faults),
    )


def read_blocks(basis: str, series: Iterable[SampleSeries]) -> dict[tuple[str, str], SumBlock]:
    """Return the block of each (model, deployment) in the samples of one basis and quantity."""
    grouped: dict[tuple[str, str], dict[str, list[SampleSeries]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for one in series:
        labels = one.metric
        model = labels.get("model", "")
        key = (model, labels.get("deployment", model))
        grouped[key][one.describe_instance(_SUM_LABELS)].append(one)
    return {
        key: merge_blocks(
            [_read_instance(basis, where, found) for where, found in sorted(instances.items())]
        )
        for key, instances in grouped.items()
    }


def _read_instance(basis: str, where: str, series: list[SampleSeries]) -> SumBlock:
    terms = TERMS[basis]
    rows: dict[float, dict[str, float]] = defaultdict(dict)
    for one in series:
        for at, value in one.values:
            rows[at][one.metric.get("term", "")] = float(value)
    whole = sorted(at for at, row in rows.items() if all(term in row for term in terms))
    incomplete = len(rows) - len(whole)
    shown = np.array([[rows[at][term] for term in terms] for at in whole]).reshape(-1, len(terms))
    if not np.isfinite(shown).all() or (shown < 0.0).any():
        at, term = np.argwhere(~(shown >= 0.0) | ~np.isfinite(shown))[0]
        seen = f"term {terms[term]} is {shown[at, term]:g} at {_format_time(whole[at])}"
        return replace(
            create_empty_block(basis), instances=1, incomplete=incomplete, scrapes=len(whole),
            faults=(SumFault("negative", where, seen),),
        )  # fmt: skip
    steps = np.diff(shown, axis=0)
    began: NDArray[np.bool_] = np.any(steps < 0.0, axis=1)
    faults = _find_impossible_reset(terms, where, shown, steps, began, whole)
    steps[began] = shown[1:][began]
    busy = (steps > 0.0).any(axis=1)
    faults += _find_stuck_terms(terms, where, steps[busy])
    # What a difference can be off by: each counter was rounded to a double when it was exported.
    blur = 2.0 * _EPS * shown[1:][busy]
    faults += _find_impossible_sums(terms, where, steps[busy], blur)
    return SumBlock(
        basis,
        steps[busy],
        instances=1,
        scrapes=len(whole),
        resets=int(began.sum()),
        incomplete=incomplete,
        faults=tuple(faults),
    )


def _find_impossible_reset(
    terms: Sequence[str], where: str, shown: Floats, steps: Floats, began: NDArray[np.bool_],
    times: Sequence[float],
) -> list[SumFault]:  # fmt: skip
    """Find a term that fell while n rose: no restart catches up with a long life in one scrape.

    A long life is many times what any one scrape has added.
    """
    n = terms.index("n")
    usual = float(steps[~began, n].max(initial=0.0))
    long = shown[:-1, n] >= max(_OUTRUN_REQUESTS, _OUTRUN_SCRAPES * usual)
    odd = began & (steps[:, n] >= 0.0) & long
    if not odd.any():
        return []
    at = int(np.argmax(odd))
    term = terms[int(np.argmin(steps[at]))]
    seen = (
        f"term {term} fell at {_format_time(times[at + 1])} while n, of {shown[at, n]:g}, did not"
    )
    return [SumFault("fell", where, seen)]


def _find_stuck_terms(terms: Sequence[str], where: str, steps: Floats) -> list[SumFault]:
    """Find a term that stood still while another moved that cannot without it."""
    needs = [frozenset(parse_powers(term)) for term in terms]
    moved = steps > 0.0
    requests = np.maximum(steps[:, terms.index("n")], 1.0)
    found = []
    for at, term in enumerate(terms):
        others = [other for other, need in enumerate(needs) if needs[at] <= need]
        stuck = ~moved[:, at] & moved[:, others].any(axis=1)
        count = float(requests[stuck].sum())
        if count >= _STUCK_REQUESTS:
            seen = f"term {term} stood still over {count:g} requests while others moved"
            found.append(SumFault("stuck", where, seen))
    return found


def _find_impossible_sums(
    terms: Sequence[str], where: str, steps: Floats, blur: Floats
) -> list[SumFault]:
    """Find sums that break Cauchy and Schwarz's inequality: (sum ab)² <= sum a² times sum b²."""
    for term in terms:
        for one, two in _find_square_factors(term, terms):
            ab, a, b = (terms.index(name) for name in (term, one, two))
            least, most = steps[:, ab] ** 2, steps[:, a] * steps[:, b]
            slack = _SLACK * most + 2.0 * steps[:, ab] * blur[:, ab]
            slack += steps[:, a] * blur[:, b] + steps[:, b] * blur[:, a]
            broken = least > most + slack
            if broken.any():
                at = int(np.argmax(broken))
                seen = (
                    f"({term})² is {least[at]:.6g} but {one} x {two} is only {most[at]:.6g} in "
                    "one scrape"
                )
                return [SumFault("impossible", where, seen)]
    return []


def _find_square_factors(term: str, terms: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of squares that bound a term, among those there are."""
    have = parse_powers(term)
    pairs = []
    for one in terms:
        square = parse_powers(one)
        if any(count % 2 for count in square.values()):
            continue
        other = Counter({v: 2 * have[v] - square[v] for v in _VARIABLES})
        if all(count >= 0 and count % 2 == 0 for count in other.values()):
            two = format_term(other)
            if two in terms and one < two:
                pairs.append((one, two))
    return pairs


def parse_powers(term: str) -> Counter[str]:
    """Return each variable's power in a term: i2o is {i: 2, o: 1}, n is none."""
    found: Counter[str] = Counter()
    last = ""
    for letter in term.removeprefix("n"):
        if letter.isdigit():
            found[last] = int(letter)
        else:
            found[letter] += 1
        last = letter
    return found


def format_term(found: Counter[str]) -> str:
    """Return the term of those powers; the other way round of `powers`."""
    parts = (f"{v}{found[v] if found[v] > 1 else ''}" for v in _VARIABLES if found[v])
    return "".join(parts) or "n"


def _format_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
