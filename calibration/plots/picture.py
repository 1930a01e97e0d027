"""One figure with its caption, notes and the numbers behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from gateway.scheduling.decision import MetricWeights

Cells = Sequence[str]


@dataclass(frozen=True, slots=True)
class PictureTable:
    """A table of formatted numbers; the first column is the row's name."""

    title: str
    columns: Cells
    rows: Sequence[Cells]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure, its caption, notes and tables; `name` is its file's name."""

    name: str
    title: str
    reading: str
    """How to read it."""
    figure: Figure
    tables: list[PictureTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class PictureUnavailable(Exception):
    """A figure cannot be drawn from the given inputs; the message says what is missing."""


def format_length(length: tuple[int, int]) -> str:
    """Format a length."""
    return f"{length[0]:,} tokens in, {length[1]:,} out"


def format_weights(weights: MetricWeights) -> str:
    """Format weights."""
    given = (weights.accuracy, weights.energy, weights.time)
    return "accuracy {:.3g}, energy {:.3g}, time {:.3g}".format(*given)


def describe_tied_models(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a note per pair of models of equal cost and accuracy."""
    return [
        f"{first} and {second} cost the same wherever shown, and are as accurate: every tie goes "
        f"to {first}, so that {second} never wins."
        for first, second in pairs
    ]
