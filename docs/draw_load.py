"""Draw joules and milliseconds per token against load as an SVG, from the library's entries.

Both axes are logarithmic. Lines are dashed where nothing was measured and end where measuring
ended; each is named at its beginning, so that none is told by its colour alone.
"""

# ruff: noqa: INP001 - a script beside the pages

from collections.abc import Callable, Iterator
from typing import NamedTuple

import svg

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
_HEIGHT = 470
_SIZE = (336, 400)
"""A chart's width, and where its area ends."""
_LABEL = "requests running at once on the backend"
_STEPS = 48
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

_STYLE = svg.build_style(
    svg.HEADS
    + svg.AXES
    + """
    .curve { fill: none; stroke-width: 2.2 }
    .guess { stroke-dasharray: 5 4; stroke-width: 1.6 }
    .s0 { stroke: #0072b2 } .s1 { stroke: #d55e00 } .s2 { stroke: #009e73 }
    .s3 { stroke: #cc79a7 } .s4 { stroke: #e69f00 }
    .end { fill: #ffffff; stroke-width: 2 }""",
    """
      .axis { stroke: #9198a1 }
      .grid { stroke: #3d444d }
      .s0 { stroke: #56b4e9 }
      .end { fill: #0d1117 }""",
)


class LoadPanel(NamedTuple):
    """One of the two charts and its value at so many requests running at once."""

    chart: svg.Chart
    value: Callable[[LibraryEntry, float], float]


PANELS = (
    LoadPanel(
        svg.Chart(
            110,
            "joules per generated token",
            _LABEL,
            _BATCHES,
            (0.05, 0.1, 0.3, 1, 3, 10, 30, 100, 200),
            *_SIZE,
            logarithmic=True,
        ),
        lambda entry, batch: entry.joules_per_token(batch - 1.0),
    ),
    LoadPanel(
        svg.Chart(
            584,
            "milliseconds per generated token",
            _LABEL,
            _BATCHES,
            (5, 10, 20, 40, 80),
            *_SIZE,
            logarithmic=True,
        ),
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
    parts: list[str] = []
    for panel in PANELS:
        parts += svg.draw_axes(panel.chart, labels_right=True)
        for number, (name, words) in enumerate(SHOWN.items()):
            parts += _draw_curve(panel, library.entries[name], number, words)
    source = f"fitted to: {library.source}"
    return svg.draw_charts(_HEIGHT, title, about, told, _STYLE, parts, source)


def _describe_entry(name: str, entry: LibraryEntry) -> str:
    values = ", ".join(
        f"{entry.joules_per_token(batch - 1.0):.3g} J and "
        f"{1e3 * entry.seconds_per_token(batch - 1.0):.3g} ms at {batch}"
        for batch in (8, 32)
    )
    return f"{name}: {values}"


def _draw_curve(panel: LoadPanel, entry: LibraryEntry, number: int, words: str) -> Iterator[str]:
    chart = panel.chart
    low, high = entry.batch[0], min(entry.batch[1], LARGEST_BATCH)
    for first, last, kind in ((1.0, low, " guess"), (low, high, "")):
        batches = [first * (last / first) ** (step / _STEPS) for step in range(_STEPS + 1)]
        points = " ".join(
            f"{chart.x(batch):.1f},{chart.y(panel.value(entry, batch)):.1f}" for batch in batches
        )
        yield f'  <polyline class="curve{kind} s{number}" points="{points}"/>'
    # No ring where a line leaves the chart: it was measured beyond.
    for batch in (low, high) if high < LARGEST_BATCH else (low,):
        x, y = chart.x(batch), chart.y(panel.value(entry, batch))
        yield f'  <circle class="end s{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    y = chart.y(panel.value(entry, 1.0))
    yield svg.draw_text(chart.left - 8, y + 4, words, "", "end")
