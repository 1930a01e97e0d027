"""Figures as a person reads them."""

import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple


def share_of(values: Iterable[float], share: float) -> float:
    """Return a percentile (0.99), 0 where there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Figure(NamedTuple):
    """The median over the rounds, and how far the rounds lay apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        return cls(statistics.median(values), min(values), max(values))

    @property
    def spread(self) -> float:
        """The range in parts of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def number(value: float) -> str:
    """Return four digits or so."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay rows out in columns, the first to the left and the others to the right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    lines = []
    for row in cells:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def say(text: str) -> None:
    """Tell on stderr how far a run is."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
