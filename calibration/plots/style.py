"""The style of all figures: colour-blind-safe colours, and never colour alone.

A model keeps its colour, marker, hatch and line style in every picture. No pyplot: figures are
made and saved by themselves, so that no display or global state is touched.
"""

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from calibration.arrays import Floats

INK = "#1a1b1c"
PAPER = "#ffffff"
MUTED = "#6b6c6d"
"""Three colours that a page may replace by its own; no other element of a figure uses them."""

# Okabe and Ito, "Color Universal Design" (2008), without black, which is the ink.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_HATCHES = ("////", "..", "\\\\\\\\", "xxx", "---", "oo", "+++", "|||")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

_RC: Any = {
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a model's name may hold a $
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "font.size": 9,
    "font.family": ["DejaVu Sans", "sans-serif"],
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "hatch.linewidth": 0.7,
    "svg.fonttype": "none",  # labels stay text: found, read aloud, and small
    "svg.image_inline": True,
    "path.simplify": True,
}
_DPI = 130
_NAME_CHARS = 30
_LOG_FROM = 10.0
_ROUNDING = 1e-9
_CHAR_INCHES = 0.067  # of a label
_SWATCH_CHARS = 7
_STEPS: tuple[tuple[float, Sequence[float]], ...] = (
    (0.8, (1, 1.5, 2, 3, 4, 6, 8)),
    (1.7, (1, 2, 5)),
    (3.2, (1, 3)),
    (math.inf, (1,)),
)
"""The tick digits of a logarithmic axis, by its maximum number of decades."""


@dataclass(frozen=True, slots=True)
class ModelStyle:
    """Colour, marker, line and hatching of one model."""

    colour: str
    marker: str
    hatch: str
    line: Any


def get_model_style(number: int) -> ModelStyle:
    """Return the style of the n-th model; 315 are distinct."""
    return ModelStyle(
        _COLOURS[number % len(_COLOURS)],
        _MARKERS[number % len(_MARKERS)],
        _HATCHES[number % len(_HATCHES)],
        _LINES[number % len(_LINES)],
    )


def shorten_name(name: str) -> str:
    """Return a name truncated to a label's width."""
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"


def format_number(value: float) -> str:
    """Format a number: three significant digits, an exponent only where needed."""
    size = abs(value)
    if not math.isfinite(value):
        return "-"
    if 1e3 <= size < 1e7:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.3g}"


def drop_rounding(value: float, scale: float) -> float:
    """Return 0 for a value that is rounding error relative to `scale`."""
    return 0.0 if abs(value) < _ROUNDING * scale else value


@contextmanager
def apply_style() -> Iterator[None]:
    """Draw and save in this style, regardless of the user's matplotlibrc."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def create_figure(width: float, height: float) -> Figure:
    """Return an empty figure (inches) whose layout avoids overlapping labels."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.03)
    made = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(made)
    return made


def encode_figure(drawn: Figure, kind: str, name: str) -> bytes:
    """Return the bytes of a PNG or SVG; deterministic."""
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    with apply_style(), warnings.catch_warnings():
        # A model may be named in a script that the font lacks: boxes, but no noise.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        mpl.rcParams["svg.hashsalt"] = name
        drawn.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
    return buffer.getvalue()


def needs_log_axis(values: Sequence[float]) -> bool:
    """Return whether the range of positive values needs a logarithmic axis."""
    return min(values) > 0.0 and max(values) / min(values) > _LOG_FROM


def set_log_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """Make an axis logarithmic from low to high, with plain numbers on it."""
    if which == "x":
        axes.set_xscale("log")
        axes.set_xlim(low, high)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    decades = math.log10(high / low)
    factors = next(steps for most, steps in _STEPS if decades <= most)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(create_number_formatter())


def create_number_formatter() -> FuncFormatter:
    """Return a formatter that writes numbers as `format_number` does."""
    return FuncFormatter(
        lambda value, _: f"{value:g}" if 0 < abs(value) < 1 else format_number(value)
    )


def limit_ticks(axis: Axis, most: int = 5) -> None:
    """Thin out tick labels so that they do not overlap."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(create_number_formatter())


def build_label_box() -> dict[str, Any]:
    """Return a background box for text over hatching; an outline would make it paths in SVG."""
    return {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.8}


def fill_hatched(fill: Callable[..., Any], seen: ModelStyle) -> None:
    """Fill an area twice: a tint, and hatches over it (SVG hatches have no opacity)."""
    fill(facecolor=(seen.colour, 0.32), edgecolor="none", linewidth=0)
    fill(facecolor="none", edgecolor=seen.colour, hatch=seen.hatch, linewidth=0.8)


def build_legend_patch(name: str, seen: ModelStyle, *, wins: bool = True) -> Patch:
    """Return a legend's patch; `wins` says whether the model appears in the figure."""
    return Patch(
        facecolor=(seen.colour, 0.32), edgecolor=seen.colour, hatch=seen.hatch,
        label=shorten_name(name) if wins else f"{shorten_name(name)} (never wins here)",
    )  # fmt: skip


def find_roomiest_point(points: Floats, obstacles: Floats) -> int:
    """Return which of the points (n x 2) is farthest from all obstacles (m x 2).

    Text is wide and low, so that sideways distance counts a third.
    """
    gaps = (points[:, None, :] - obstacles[None, :, :]) / np.array([3.0, 1.0])
    return int(np.argmax((gaps**2).sum(axis=2).min(axis=1)))


def build_legend_marker(name: str, seen: ModelStyle, *, hollow: bool = False) -> Line2D:
    """Return a legend's marker."""
    return Line2D(
        [], [], linestyle="none", marker=seen.marker, color=seen.colour, markersize=7,
        markerfacecolor="none" if hollow else seen.colour, label=name,
    )  # fmt: skip


def label_fits(text: str, inches: float) -> bool:
    """Return whether a label (nearly) fits a width in inches."""
    return len(text) * _CHAR_INCHES <= inches


def add_legend(drawn: Figure, handles: Sequence[Any]) -> None:
    """Draw one legend above all panels, in as many columns as fit."""
    widest = max(len(str(one.get_label())) for one in handles) + _SWATCH_CHARS
    columns = int(drawn.get_figwidth() / (widest * _CHAR_INCHES))
    columns = max(1, min(len(handles), columns))
    drawn.legend(handles=list(handles), loc="outside upper center", ncols=columns)


def write_panel_message(axes: Axes, text: str) -> None:
    """Write into an empty panel why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, transform=axes.transAxes)
