"""Rows told apart by how many requests the server was working on: joules and seconds depend on it.

A class has a marker and a shade of the model's colour: the darker, the more company.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from numpy.typing import NDArray

from calibration.arrays import Floats

_MOST: Final = (1.0, 4.0, 16.0, np.inf)
_LABELS: Final = ("1 at a time", "2 to 4", "5 to 16", "17 and more")
_MARKERS: Final = ("o", "s", "^", "D")
_SHADES: Final = (0.55, 0.25, 0.0, -0.35)
"""How far towards white (above 0) or black a class is from the model's own colour."""
NOT_TOLD: Final = "not told"


class ConcurrencyClass(NamedTuple):
    """One class: what it is called, its rows (a mask), its marker and shade."""

    label: str
    rows: NDArray[np.bool_]
    marker: str
    shade: float

    def tint(self, colour: str) -> str:
        """Return a model's colour in the class's shade."""
        towards = 1.0 if self.shade > 0 else 0.0
        part = abs(self.shade)
        red, green, blue = (one + (towards - one) * part for one in to_rgb(colour))
        return to_hex((red, green, blue))


def split_by_concurrency(running: Floats) -> list[ConcurrencyClass]:
    """Return the classes that have rows; `running` counts the others at each row's server.

    One class alone where nothing tells rows apart.
    """
    return list(_iterate_classes(running + 1.0))


def _iterate_classes(at_a_time: Floats) -> Iterator[ConcurrencyClass]:
    low = 0.0
    for label, most, marker, shade in zip(_LABELS, _MOST, _MARKERS, _SHADES, strict=True):
        rows = (at_a_time > low) & (at_a_time <= most)
        low = most
        if rows.any():
            yield ConcurrencyClass(label, rows, marker, shade)
    unknown = np.isnan(at_a_time)
    if unknown.any():
        yield ConcurrencyClass(NOT_TOLD, unknown, "x", 0.0)
