"""Draw joules and milliseconds per token against load as an SVG, from the library's entries.

Both axes are logarithmic. Lines are dashed where nothing was measured and end where measuring
ended; each is named at its beginning, so that none is told by its colour alone.
"""

# ruff: noqa: INP001 - a script beside the pages

from collections.abc import Callable, Iterator
from html import escape
from math import log
from typing import NamedTuple

from gateway.library.shipped import LibraryEntry, load_library

SHOWN = {
    "Llama-3.1-405B-Instruct-FP8@8xH100": "Llama 405B",
    "Llama-3.1-70B-Instruct@4xH100": "Llama 70B",
    "gemma-3-27b-it@H100": "Gemma 27B",
    "Qwen3-14B@H100": "Qwen3 14B",
    "Llama-3.1-8B-Instruct@H100": "Llama 8B",
}
"""Entries that are drawn, each with its short name."""

LARGEST_BATCH = 512
_WIDTH, _HEIGHT = 960, 470
_TOP, _BOTTOM = 104, 400
_PANEL_WIDTH = 336
_STEPS = 48
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

_STYLE = """
    .panel { fill: #ffffff; stroke: #d0d7de }
    text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
      fill: #1f2328 }
    .title { font-size: 19px; font-weight: 600 }
    .head { font-size: 15px; font-weight: 600 }
    .soft { fill: #59636e; font-size: 12px }
    .axis { stroke: #59636e }
    .grid { stroke: #d0d7de; stroke-width: 0.7 }
    .curve { fill: none; stroke-width: 2.2 }
    .guess { stroke-dasharray: 5 4; stroke-width: 1.6 }
    .s0 { stroke: #0072b2 } .s1 { stroke: #d55e00 } .s2 { stroke: #009e73 }
    .s3 { stroke: #cc79a7 } .s4 { stroke: #e69f00 }
    .end { fill: #ffffff; stroke-width: 2 }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #0d1117; stroke: #3d444d }
      text { fill: #f0f6fc }
      .soft { fill: #9198a1 }
      .axis { stroke: #9198a1 }
      .grid { stroke: #3d444d }
      .s0 { stroke: #56b4e9 }
      .end { fill: #0d1117 }
    }"""


class LoadPanel(NamedTuple):
    """One of the two charts: where it begins, what it shows, and from what to what."""

    left: float
    title: str
    ticks: tuple[float, ...]
    value: Callable[[LibraryEntry, float], float]
    """Its value at so many requests running at once."""

    def x(self, batch: float) -> float:
        """Pixels of a batch."""
        return self.left + _PANEL_WIDTH * log(batch) / log(LARGEST_BATCH)

    def y(self, value: float) -> float:
        """Pixels of a value."""
        low, high = self.ticks[0], self.ticks[-1]
        return _BOTTOM - (_BOTTOM - _TOP) * log(value / low) / log(high / low)


PANELS = (
    LoadPanel(
        110,
        "joules per generated token",
        (0.05, 0.1, 0.3, 1, 3, 10, 30, 100, 200),
        lambda entry, batch: entry.joules_per_token(batch - 1.0),
    ),
    LoadPanel(
        584,
        "milliseconds per generated token",
        (5, 10, 20, 40, 80),
        lambda entry, batch: 1e3 * entry.seconds_per_token(batch - 1.0),
    ),
)


def load_picture() -> str:
    """Return the SVG's text; the same on every machine."""
    library = load_library()
    title = "A token in company costs a fraction of its joules and little of its speed"
    about = (
        "H100s: Llama 405B (FP8) on 8, Llama 70B on 4, the others on one. "
        "Dashed: extrapolated, nothing was measured there"
    )
    told = "; ".join(_describe_entry(name, library.entries[name]) for name in SHOWN)
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    frame = f'width="{_WIDTH - 1}" height="{_HEIGHT - 1}"'
    space = 'xmlns="http://www.w3.org/2000/svg"'
    parts = [
        f'<svg {space} viewBox="0 0 {_WIDTH} {_HEIGHT}" {size} role="img" aria-labelledby="t d">',
        f'  <title id="t">{escape(title)}</title>',
        f'  <desc id="d">{escape(about)}. {escape(told)}.</desc>',
        f"  <style>{_STYLE}\n  </style>",
        f'  <rect class="panel" x="0.5" y="0.5" {frame} rx="8"/>',
        _draw_text(20, 34, title, "title"),
        _draw_text(20, 56, about, "soft"),
    ]
    for panel in PANELS:
        parts += _draw_axes(panel)
        for number, (name, words) in enumerate(SHOWN.items()):
            parts += _draw_curve(panel, library.entries[name], number, words)
    parts.append(_draw_text(20, _HEIGHT - 10, f"fitted to: {library.source}", "soft"))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _describe_entry(name: str, entry: LibraryEntry) -> str:
    values = ", ".join(
        f"{entry.joules_per_token(batch - 1.0):.3g} J and "
        f"{1e3 * entry.seconds_per_token(batch - 1.0):.3g} ms at {batch}"
        for batch in (8, 32)
    )
    return f"{name}: {values}"


def _draw_axes(panel: LoadPanel) -> Iterator[str]:
    right = panel.left + _PANEL_WIDTH
    yield _draw_text(panel.left, _TOP - 14, panel.title, "head")
    for tick in panel.ticks:
        y = panel.y(tick)
        yield f'  <line class="grid" x1="{panel.left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield _draw_text(right + 6, y + 4, f"{tick:g}", "soft")
    for batch in _BATCHES:
        x = panel.x(batch)
        yield f'  <line class="axis" x1="{x:.1f}" y1="{_BOTTOM}" x2="{x:.1f}" y2="{_BOTTOM + 5}"/>'
        yield _draw_text(x, _BOTTOM + 19, str(batch), "soft", "middle")
    yield f'  <line class="axis" x1="{panel.left}" y1="{_BOTTOM}" x2="{right}" y2="{_BOTTOM}"/>'
    middle = panel.left + _PANEL_WIDTH / 2
    yield _draw_text(middle, _BOTTOM + 42, "requests running at once on the backend", "", "middle")


def _draw_curve(panel: LoadPanel, entry: LibraryEntry, number: int, words: str) -> Iterator[str]:
    low, high = entry.batch[0], min(entry.batch[1], LARGEST_BATCH)
    for first, last, kind in ((1.0, low, " guess"), (low, high, "")):
        batches = [first * (last / first) ** (step / _STEPS) for step in range(_STEPS + 1)]
        points = " ".join(
            f"{panel.x(batch):.1f},{panel.y(panel.value(entry, batch)):.1f}" for batch in batches
        )
        yield f'  <polyline class="curve{kind} s{number}" points="{points}"/>'
    # No ring where a line leaves the chart: it was measured beyond.
    for batch in (low, high) if high < LARGEST_BATCH else (low,):
        x, y = panel.x(batch), panel.y(panel.value(entry, batch))
        yield f'  <circle class="end s{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    y = panel.y(panel.value(entry, 1.0))
    yield _draw_text(panel.left - 8, y + 4, words, "", "end")


def _draw_text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'  <text{kind} x="{x:.6g}" y="{y:.6g}"{where}>{escape(text)}</text>'
