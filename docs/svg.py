"""What the pictures of these pages share: an SVG's frame, text and style sheet, a chart's axes."""

# ruff: noqa: INP001 - a script's helper

from collections.abc import Iterator, Sequence
from html import escape
from math import log
from typing import NamedTuple

WIDTH = 960
TOP = 104
"""Where the area of a chart begins."""

HEADS = """
    .head { font-size: 15px; font-weight: 600 }
    .soft { fill: #59636e; font-size: 12px }"""
AXES = """
    .axis { stroke: #59636e }
    .grid { stroke: #d0d7de; stroke-width: 0.7 }"""


def build_style(
    rules: str,
    dark_rules: str,
    *,
    text_pixels: int = 13,
    dark_ink: str = "#f0f6fc",
    dark_edge: str = "#3d444d",
) -> str:
    """Return a style sheet: the rules that all pictures have, then a picture's own."""
    return f"""
    .panel {{ fill: #ffffff; stroke: #d0d7de }}
    text {{ font: {text_pixels}px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
      fill: #1f2328 }}
    .title {{ font-size: 19px; font-weight: 600 }}{rules}
    @media (prefers-color-scheme: dark) {{
      .panel {{ fill: #0d1117; stroke: {dark_edge} }}
      text {{ fill: {dark_ink} }}
      .soft {{ fill: #9198a1 }}{dark_rules}
    }}"""


def draw_frame(
    size: tuple[int, int], title: str, description: str, style: str, parts: Sequence[str]
) -> str:
    """Return a whole SVG: its parts on a panel, with what a screen reader says."""
    width, height = size
    outer = f'width="{width}" height="{height}"'
    inner = f'width="{width - 1}" height="{height - 1}"'
    space = 'xmlns="http://www.w3.org/2000/svg"'
    lines = [
        f'<svg {space} viewBox="0 0 {width} {height}" {outer} role="img" aria-labelledby="t d">',
        f'  <title id="t">{escape(title)}</title>',
        f'  <desc id="d">{escape(description)}</desc>',
        f"  <style>{style}\n  </style>",
        f'  <rect class="panel" x="0.5" y="0.5" {inner} rx="8"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def draw_text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    """Return a line of text of a class of the style sheet, "" for none."""
    kind = f' class="{style}"' if style else ""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'  <text{kind} x="{x:.6g}" y="{y:.6g}"{where}>{escape(text)}</text>'


class Chart(NamedTuple):
    """One chart: where it lies, and what it shows from the first to the last of its ticks.

    The x axis is logarithmic; so is the y axis where `logarithmic`.
    """

    left: int
    title: str
    x_label: str
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    width: int
    bottom: int
    logarithmic: bool = False

    @property
    def right(self) -> int:
        """Where its area ends."""
        return self.left + self.width

    def x(self, value: float) -> float:
        """Pixels of a value on the x axis."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return self.left + self.width * log(value / low) / log(high / low)

    def y(self, value: float) -> float:
        """Pixels of a value on the y axis."""
        low, high = self.y_ticks[0], self.y_ticks[-1]
        share = (value - low) / (high - low)
        if self.logarithmic:
            share = log(value / low) / log(high / low)
        return self.bottom - (self.bottom - TOP) * share


def draw_axes(chart: Chart, *, labels_right: bool = False) -> Iterator[str]:
    """Yield a chart's title, grid, ticks and labels."""
    left, right, bottom = chart.left, chart.right, chart.bottom
    yield draw_text(left, TOP - 14, chart.title, "head")
    for tick in chart.y_ticks:
        y = chart.y(tick)
        yield f'  <line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        if labels_right:
            yield draw_text(right + 6, y + 4, f"{tick:g}", "soft")
        else:
            yield draw_text(left - 8, y + 4, f"{tick:g}", "soft", "end")
    for tick in chart.x_ticks:
        x = chart.x(tick)
        yield f'  <line class="axis" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}"/>'
        yield draw_text(x, bottom + 19, f"{tick:g}", "soft", "middle")
    yield f'  <line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
    yield draw_text(left + chart.width / 2, bottom + 42, chart.x_label, "", "middle")


def draw_charts(
    height: int,
    title: str,
    about: str,
    told: str,
    style: str,
    parts: Sequence[str],
    source: str,
) -> str:
    """Return a whole SVG of charts: headed by what they are about, with their source below."""
    lines = [
        draw_text(20, 34, title, "title"),
        draw_text(20, 56, about, "soft"),
        *parts,
        draw_text(20, height - 10, source, "soft"),
    ]
    return draw_frame((WIDTH, height), title, f"{about}. {told}.", style, lines)
