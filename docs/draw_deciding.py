"""Draw the pictures of docs/deciding.md as SVGs, from docs/measured/deciding.json.

`python -m tests.bench deciding --out docs/measured/deciding.json` measures anew. Series are told
apart by dash and mark, not by colour alone.
"""

# ruff: noqa: INP001 - a script beside the pages

import json
from collections.abc import Iterator, Sequence
from html import escape
from math import log
from pathlib import Path
from typing import Any, NamedTuple

MEASURED = Path(__file__).parent / "measured" / "deciding.json"
_WIDTH, _HEIGHT = 960, 430
_TOP, _BOTTOM = 104, 352
_PANEL_WIDTH = 360

_STYLE = """
    .panel { fill: #ffffff; stroke: #d0d7de }
    text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
      fill: #1f2328 }
    .title { font-size: 19px; font-weight: 600 }
    .head { font-size: 15px; font-weight: 600 }
    .soft { fill: #59636e; font-size: 12px }
    .axis { stroke: #59636e }
    .grid { stroke: #d0d7de; stroke-width: 0.7 }
    .level { stroke: #59636e; stroke-dasharray: 5 4 }
    .band { fill: #0072b2; opacity: 0.1 }
    .curve { fill: none; stroke: #0072b2; stroke-width: 2.2 }
    .dot { fill: #0072b2 } .ring { fill: none; stroke: #d55e00; stroke-width: 1.4 }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #0d1117; stroke: #3d444d }
      text { fill: #f0f6fc }
      .soft { fill: #9198a1 }
      .axis, .level { stroke: #9198a1 }
      .grid { stroke: #3d444d }
      .curve { stroke: #56b4e9 } .dot, .band { fill: #56b4e9 }
    }"""


class _Panel(NamedTuple):
    """One chart; `logarithmic` in y (x always is)."""

    left: float
    title: str
    x_label: str
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    logarithmic: bool = False

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return self.left + _PANEL_WIDTH * log(value / low) / log(high / low)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        share = (value - low) / (high - low)
        if self.logarithmic:
            share = log(value / low) / log(high / low)
        return _BOTTOM - (_BOTTOM - _TOP) * share


def packing_picture() -> str:
    """Return the SVG of what packing saves and costs against load."""
    rows = _read("packing")
    rates = [row["rate"] for row in rows]
    label = "requests per second, all four backends together"
    joules = _Panel(70, "joules, idle included", label, rates, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    p95 = _Panel(540, "time per token, p95", label, rates, (0.9, 1.0, 1.1, 1.2, 1.3))
    parts: list[str] = []
    for panel, key in ((joules, "joules"), (p95, "p95")):
        parts += _draw_axes(panel)
        parts.append(_draw_level(panel, 1.0, "spreading"))
        points = [(panel.x(row["rate"]), panel.y(row[key])) for row in rows]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'  <polyline class="curve" points="{joined}"/>')
        for (x, y), row in zip(points, rows, strict=True):
            parts.append(f'  <circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
            parts.append(_draw_text(x, y - 10, f"{row[key]:.2f}", "soft", "middle"))
    told = "; ".join(
        f"at {row['rate']:g}: joules {row['joules']:.2f}, p95 {row['p95']:.2f}" for row in rows
    )
    return _frame(
        "Packing halves the joules while there is room, and costs up to a fifth of the speed",
        "Four replicas of Qwen3-14B on an H100, default weights, as a share of sending each "
        "request to the least busy",
        told,
        parts,
        "simulated, 20 minutes a point; costs from the library",
    )


def lengths_picture() -> str:
    """Return the SVG of expected against true answer lengths, before and after learning."""
    found = _read("lengths")
    points: list[tuple[str, float, float]] = [tuple(point) for point in found["points"]]
    ticks = (5, 10, 30, 100, 300, 1000, 5000)
    before = _Panel(
        70, "expected by the profile", "tokens expected", ticks, ticks, logarithmic=True
    )
    learnt = f"expected after {found['answers']} answers of each application"
    after = _Panel(540, learnt, "tokens expected", ticks, ticks, logarithmic=True)
    parts: list[str] = []
    shares = []
    for panel, fixed in ((before, found["profile"]), (after, None)):
        parts += _draw_axes(panel)
        parts += _draw_band(panel)
        near = 0
        for model, learnt_tokens, true in points:
            expected = learnt_tokens if fixed is None else fixed
            near += 0.5 <= true / expected <= 2.0  # noqa: PLR2004 - a factor of two
            x, y = panel.x(_clamp(expected, ticks)), panel.y(_clamp(true, ticks))
            style = 'class="dot" r="2.6"' if model == "terse" else 'class="ring" r="3.4"'
            parts.append(f'  <circle {style} cx="{x:.1f}" cy="{y:.1f}"/>')
        shares.append(near / len(points))
        words = f"{shares[-1]:.0%} within a factor of two (shaded)"
        parts.append(_draw_text(panel.left + 8, _TOP + 18, words, "soft"))
    return _frame(
        "How long an answer will be is learnt from those before it",
        "Tokens of an answer (up) against what was expected of it. Dots: a terse model, rings: a "
        "verbose one",
        f"within a factor of two: {shares[0]:.0%} by the profile, {shares[1]:.0%} once learnt",
        parts,
        "simulated: 20 applications on two models, deviation of log length 0.45 within one and 0.9 "
        "between, 60% of clients cap at 128 to 512",
    )


def _read(part: str) -> Any:
    return json.loads(MEASURED.read_text(encoding="utf-8"))[part]


def _clamp(value: float, ticks: Sequence[float]) -> float:
    return min(max(value, ticks[0]), ticks[-1])


def _frame(title: str, about: str, told: str, parts: Sequence[str], source: str) -> str:
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    inner = f'width="{_WIDTH - 1}" height="{_HEIGHT - 1}"'
    space = 'xmlns="http://www.w3.org/2000/svg"'
    lines = [
        f'<svg {space} viewBox="0 0 {_WIDTH} {_HEIGHT}" {size} role="img" aria-labelledby="t d">',
        f'  <title id="t">{escape(title)}</title>',
        f'  <desc id="d">{escape(about)}. {escape(told)}.</desc>',
        f"  <style>{_STYLE}\n  </style>",
        f'  <rect class="panel" x="0.5" y="0.5" {inner} rx="8"/>',
        _draw_text(20, 34, title, "title"),
        _draw_text(20, 56, about, "soft"),
        *parts,
        _draw_text(20, _HEIGHT - 10, source, "soft"),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _draw_axes(panel: _Panel) -> Iterator[str]:
    right = panel.left + _PANEL_WIDTH
    yield _draw_text(panel.left, _TOP - 14, panel.title, "head")
    for tick in panel.y_ticks:
        y = panel.y(tick)
        yield f'  <line class="grid" x1="{panel.left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield _draw_text(panel.left - 8, y + 4, f"{tick:g}", "soft", "end")
    for tick in panel.x_ticks:
        x = panel.x(tick)
        yield f'  <line class="axis" x1="{x:.1f}" y1="{_BOTTOM}" x2="{x:.1f}" y2="{_BOTTOM + 5}"/>'
        yield _draw_text(x, _BOTTOM + 19, f"{tick:g}", "soft", "middle")
    yield f'  <line class="axis" x1="{panel.left}" y1="{_BOTTOM}" x2="{right}" y2="{_BOTTOM}"/>'
    yield _draw_text(panel.left + _PANEL_WIDTH / 2, _BOTTOM + 42, panel.x_label, "", "middle")


def _draw_level(panel: _Panel, value: float, words: str) -> str:
    y, right = panel.y(value), panel.left + _PANEL_WIDTH
    line = f'  <line class="level" x1="{panel.left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
    beside = y - 6 if y > _TOP else y + 16
    return f"{line}\n{_draw_text(panel.left + 4, beside, words, 'soft')}"


def _draw_band(panel: _Panel) -> Iterator[str]:
    low, high = panel.x_ticks[0], panel.x_ticks[-1]
    edge = ((low, 2 * low), (high / 2, high), (high, high), (high, high / 2), (2 * low, low))
    corners = [*edge, (low, low)]
    joined = " ".join(f"{panel.x(x):.1f},{panel.y(y):.1f}" for x, y in corners)
    yield f'  <polygon class="band" points="{joined}"/>'
    ends = f'x1="{panel.x(low):.1f}" y1="{panel.y(low):.1f}" x2="{panel.x(high):.1f}"'
    yield f'  <line class="level" {ends} y2="{panel.y(high):.1f}"/>'


def _draw_text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'  <text{kind} x="{x:.6g}" y="{y:.6g}"{where}>{escape(text)}</text>'
