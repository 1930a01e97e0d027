"""One picture: a figure, what it says in words, and the numbers behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from gateway.scheduling.decision import MetricWeights

Cells = Sequence[str]


@dataclass(frozen=True, slots=True)
class PictureTable:
    """Numbers as text; the first column names the row."""

    title: str
    columns: Cells
    rows: Sequence[Cells]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and what goes beside it; `name` is its file's name."""

    name: str
    title: str
    reading: str
    """How to read it."""
    figure: Figure
    tables: list[PictureTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class PictureUnavailable(Exception):
    """A picture that cannot be drawn of what was given; the message says what is missing."""


def format_length(length: tuple[int, int]) -> str:
    """Write a length."""
    return f"{length[0]:,} tokens in, {length[1]:,} out"


def format_weights(weights: MetricWeights) -> str:
    """Write weights."""
    given = (weights.accuracy, weights.energy, weights.time)
    return "accuracy {:.3g}, energy {:.3g}, time {:.3g}".format(*given)


def describe_tied_models(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Say which models cannot be told apart."""
    return [
        f"{first} and {second} cost the same wherever shown, and are as accurate: every tie goes "
        f"to {first}, so that {second} never wins."
        for first, second in pairs
    ]
