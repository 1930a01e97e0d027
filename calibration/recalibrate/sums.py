"""From raw samples of the gateways' sums to what each scrape interval added to them.

    samples -> (per deployment, block, instance) scrapes -> differences -> SumBlock

Rules:
- An instance is every label but those that name the sum; its series are scraped together, so a
  scrape is one timestamp. A scrape that lacks a term of the block is left out, and counted.
- What is added between two scrapes is a difference of raw samples, never `increase()`. Where any
  term of a block falls, the whole block was reset: what it shows then counts from 0. What an
  instance showed at its first scrape in the window was earlier, and does not count.
- Two Prometheus servers that scrape one gateway show it twice; `duplicates` says how that is
  noticed, and only the fuller of the two counts.
- Every term but those of t is a sum of products of numbers that are not negative. What no such rows
  can give is a fault, and a block with a fault is not to be fitted: negative values, a term that
  stands still while one that needs it moves, (sum of v)² above n times (sum of v²).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.arrays import Floats
from calibration.recalibrate import duplicates
from calibration.recalibrate.faults import (
    SumFault,
    find_impossible_reset,
    find_impossible_sums,
    find_stuck_terms,
)
from calibration.recalibrate.prometheus import Series
from gateway.scheduling.regression_terms import COSTS, PROMPT, TERMS
from gateway.utc_time import format_time

SUMS_METRIC = "joulegate_ols_sum_total"

_SUM_LABELS = frozenset({"__name__", "model", "deployment", "basis", "quantity", "term"})
_SPELT = frozenset({COSTS, PROMPT})
"""Bases whose terms spell products."""
_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, slots=True)
class SumBlock:
    """What was added to one block; `clusters` has a row per scrape interval that saw requests."""

    basis: str
    clusters: Floats
    """G x terms, in base units, in the order of TERMS[basis]."""
    times: Floats
    """G: when each interval ended, in Unix seconds."""
    instances: int = 0
    scrapes: int = 0
    resets: int = 0
    incomplete: int = 0
    """Scrapes left out because a term was missing."""
    faults: tuple[SumFault, ...] = ()
    duplicates: tuple[str, ...] = ()
    """Instances left out because another series shows the same gateway."""

    def get_term(self, term: str) -> Floats:
        """Return what each scrape interval added to a term."""
        return self.clusters[:, TERMS[self.basis].index(term)]

    def sum_term(self, term: str) -> float:
        """Return what was added to a term over all instances and scrapes."""
        return float(self.get_term(term).sum())

    @property
    def n(self) -> int:
        """Requests."""
        first = TERMS[self.basis][0]
        return round(self.sum_term(first))

    def select_since(self, at: float) -> "SumBlock":
        """Return what was added after a moment."""
        return self.select_intervals(self.times > at)

    def select_intervals(self, chosen: NDArray[np.bool_]) -> "SumBlock":
        """Return some of the intervals."""
        return replace(self, clusters=self.clusters[chosen], times=self.times[chosen])

    def group_by_time(self, seconds: float) -> "SumBlock":
        """Add up the intervals that ended within the same `seconds` of the clock."""
        labels, at = np.unique(np.floor(self.times / seconds), return_inverse=True)
        total = np.zeros((len(labels), self.clusters.shape[1]))
        np.add.at(total, at, self.clusters)
        return replace(self, clusters=total, times=(labels + 1.0) * seconds)


def create_empty_block(basis: str) -> SumBlock:
    """Return the block that saw nothing."""
    return SumBlock(basis, np.zeros((0, len(TERMS[basis]))), np.zeros(0))


def merge_blocks(blocks: Sequence[SumBlock]) -> SumBlock:
    """Add blocks of one basis (instances, or deployments that share a profile)."""
    return replace(
        blocks[0],
        clusters=np.vstack([one.clusters for one in blocks]),
        times=np.concatenate([one.times for one in blocks]),
        instances=sum(one.instances for one in blocks),
        scrapes=sum(one.scrapes for one in blocks),
        resets=sum(one.resets for one in blocks),
        incomplete=sum(one.incomplete for one in blocks),
        faults=tuple(fault for one in blocks for fault in one.faults),
        duplicates=tuple(where for one in blocks for where in one.duplicates),
    )


def read_blocks(
    basis: str, series: Iterable[Series], since: Mapping[str, float] | None = None
) -> dict[tuple[str, str], SumBlock]:
    """Return the block of each (model, deployment) in the samples of one basis and quantity.

    `since` has the moment from which on an instance counts, where it is not all of the window.
    """
    grouped: dict[tuple[str, str], dict[str, list[Series]]] = defaultdict(lambda: defaultdict(list))
    for one in series:
        labels = one.metric
        model = labels.get("model", "")
        key = (model, labels.get("deployment", model))
        grouped[key][one.describe_instance(_SUM_LABELS)].append(one)
    return {
        key: _read_deployment(basis, instances, since or {}) for key, instances in grouped.items()
    }


def _read_deployment(
    basis: str, instances: Mapping[str, list[Series]], since: Mapping[str, float]
) -> SumBlock:
    shown = {
        where: _collect_samples(basis, where, found) for where, found in sorted(instances.items())
    }
    doubled = duplicates.find_duplicates(
        {where: (one.times, one.values) for where, one in shown.items()}
    )
    blocks = []
    for where, one in shown.items():
        if where not in doubled:
            block = _read_instance(basis, one)
            blocks.append(block.select_since(since[where]) if where in since else block)
    return replace(merge_blocks(blocks), duplicates=tuple(doubled))


@dataclass(frozen=True, slots=True)
class _InstanceSamples:
    """What an instance showed: a row of terms per scrape."""

    where: str
    times: Floats
    values: Floats
    incomplete: int


def _collect_samples(basis: str, where: str, series: list[Series]) -> _InstanceSamples:
    terms = TERMS[basis]
    rows: dict[float, dict[str, float]] = defaultdict(dict)
    for one in series:
        for at, value in one.values:
            rows[at][one.metric.get("term", "")] = float(value)
    whole = sorted(at for at, row in rows.items() if all(term in row for term in terms))
    values = np.array([[rows[at][term] for term in terms] for at in whole]).reshape(-1, len(terms))
    return _InstanceSamples(where, np.array(whole), values, len(rows) - len(whole))


def _read_instance(basis: str, one: _InstanceSamples) -> SumBlock:
    terms = TERMS[basis]
    where, whole, shown, incomplete = one.where, one.times, one.values, one.incomplete
    signed = np.array([_is_signed(basis, term) for term in terms])
    bad = ~np.isfinite(shown) | ((shown < 0.0) & ~signed)
    if bad.any():
        at, term = np.argwhere(bad)[0]
        seen = f"term {terms[term]} is {shown[at, term]:g} at {format_time(whole[at])}"
        return replace(
            create_empty_block(basis), instances=1, incomplete=incomplete, scrapes=len(whole),
            faults=(SumFault("negative", where, seen),),
        )  # fmt: skip
    steps = np.diff(shown, axis=0)
    # A sum of t falls as it rises; the others fall where the process began again.
    began: NDArray[np.bool_] = np.any(steps[:, ~signed] < 0.0, axis=1)
    faults = find_impossible_reset(terms, where, shown, np.where(signed, 0.0, steps), began, whole)
    steps[began] = shown[1:][began]
    busy = (steps != 0.0).any(axis=1)
    if basis in _SPELT:
        plain = [at for at in range(len(terms)) if not signed[at]]
        names = [terms[at] for at in plain]
        some = steps[busy][:, plain]
        faults += find_stuck_terms(names, where, some)
        # What a difference can be off by: each counter was rounded to a double when exported.
        faults += find_impossible_sums(names, where, some, 2.0 * _EPS * shown[1:][busy][:, plain])
    return SumBlock(
        basis,
        steps[busy],
        whole[1:][busy],
        instances=1,
        scrapes=len(whole),
        resets=int(began.sum()),
        incomplete=incomplete,
        faults=tuple(faults),
    )


def _is_signed(basis: str, term: str) -> bool:
    return basis == COSTS and term.endswith("t")
