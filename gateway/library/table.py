"""The library as a table: what a token takes at three loads, and how far off the fits are."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich.table import Table

from gateway.library.shipped import ErrorSummary, Library, LibraryEntry

SHOWN_BATCHES = (1, 8, 32)
"""Requests running together, the one itself included; nothing was measured at 1."""
HEAD = (
    "entry",
    "points",
    "batches",
    *(f"J/token at {batch}" for batch in SHOWN_BATCHES),
    *(f"ms/token at {batch}" for batch in SHOWN_BATCHES),
    "idle W",
    "J/token error",
    "ms/token error",
)
"""Errors are leave-one-out: median and mean over the series' points."""


class LibraryRow(NamedTuple):
    """One line: an entry's name, the entry, and its cells as texts, in the order of `HEAD`."""

    name: str
    entry: LibraryEntry
    cells: tuple[str, ...]


def list_rows(library: Library, containing: str = "") -> list[LibraryRow]:
    """Return a line for each entry whose name has that text in it, whatever the case."""
    return [
        LibraryRow(name, entry, tuple(_format_cells(library, name, entry)))
        for name, entry in library.entries.items()
        if containing.lower() in name.lower()
    ]


def _format_cells(library: Library, name: str, entry: LibraryEntry) -> Iterator[str]:
    low, high = entry.batch
    yield name
    yield str(entry.points)
    yield f"{low:.0f} to {high:.0f}"
    for batch in SHOWN_BATCHES:
        yield f"{entry.joules_per_token(batch - 1):.3g}"
    for batch in SHOWN_BATCHES:
        yield f"{1e3 * entry.seconds_per_token(batch - 1):.3g}"
    yield f"{library.idle_watts(entry):.0f}"
    yield _format_error(entry.joules_error)
    yield _format_error(entry.seconds_error)


def _format_error(errors: ErrorSummary) -> str:
    return f"{errors.median:.1%}, {errors.mean:.1%}"


def draw_table(rows: Iterable[LibraryRow]) -> Table:
    """Return the lines as a table for a terminal."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for name in HEAD:
        left = name == HEAD[0]
        # A column's unit stands above its load, so that all of them fit a terminal.
        title = name.replace(" at ", "\nat ").replace(" error", "\nerror")
        table.add_column(
            title if "\n" in title else f"\n{title}",
            justify="left" if left else "right",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(*row.cells)
    return table


def describe_errors(library: Library) -> Iterator[str]:
    """Say in one line per cost how far off the fits are over all series that are long enough."""
    overall = library.leave_one_out
    for title, errors in (
        ("joules per token", overall.joules),
        ("time per token", overall.seconds),
    ):
        yield (
            f"leave-one-out error of {title}: median {errors.median:.1%}, mean {errors.mean:.1%} "
            f"({overall.points} points, {overall.series} series of {overall.least_points} and more)"
        )
