"""Draw the pictures of docs/deciding.md as SVGs, from docs/measured/deciding.json.

`python -m tests.bench deciding --out docs/measured/deciding.json` measures anew. Series are told
apart by dash and mark, not by colour alone.
"""

# ruff: noqa: INP001 - a script beside the pages

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import svg

MEASURED = Path(__file__).parent / "measured" / "deciding.json"
_HEIGHT = 430
_SIZE = (360, 352)
"""A chart's width, and where its area ends."""

_STYLE = svg.build_style(
    svg.HEADS
    + svg.AXES
    + """
    .level { stroke: #59636e; stroke-dasharray: 5 4 }
    .band { fill: #0072b2; opacity: 0.1 }
    .curve { fill: none; stroke: #0072b2; stroke-width: 2.2 }
    .dot { fill: #0072b2 } .ring { fill: none; stroke: #d55e00; stroke-width: 1.4 }""",
    """
      .axis, .level { stroke: #9198a1 }
      .grid { stroke: #3d444d }
      .curve { stroke: #56b4e9 } .dot, .band { fill: #56b4e9 }""",
)


def packing_picture() -> str:
    """Return the SVG of what packing saves and costs against load."""
    rows = _read("packing")
    rates = [row["rate"] for row in rows]
    label = "requests per second, all four backends together"
    shares = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    joules = svg.Chart(70, "joules, idle included", label, rates, shares, *_SIZE)
    times = (0.9, 1.0, 1.1, 1.2, 1.3)
    p95 = svg.Chart(540, "time per token, p95", label, rates, times, *_SIZE)
    parts: list[str] = []
    for chart, key in ((joules, "joules"), (p95, "p95")):
        parts += svg.draw_axes(chart)
        parts.append(_draw_level(chart, 1.0, "spreading"))
        points = [(chart.x(row["rate"]), chart.y(row[key])) for row in rows]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'  <polyline class="curve" points="{joined}"/>')
        for (x, y), row in zip(points, rows, strict=True):
            parts.append(f'  <circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
            parts.append(svg.draw_text(x, y - 10, f"{row[key]:.2f}", "soft", "middle"))
    told = "; ".join(
        f"at {row['rate']:g}: joules {row['joules']:.2f}, p95 {row['p95']:.2f}" for row in rows
    )
    return svg.draw_charts(
        _HEIGHT,
        "Packing halves the joules while there is room, and costs up to a fifth of the speed",
        "Four replicas of Qwen3-14B on an H100, default weights, as a share of sending each "
        "request to the least busy",
        told,
        _STYLE,
        parts,
        "simulated, 20 minutes a point; costs from the library",
    )


def lengths_picture() -> str:
    """Return the SVG of expected against true answer lengths, before and after learning."""
    found = _read("lengths")
    points: list[tuple[str, float, float]] = [tuple(point) for point in found["points"]]
    ticks = (5, 10, 30, 100, 300, 1000, 5000)
    known, label = "expected by the profile", "tokens expected"
    before = svg.Chart(70, known, label, ticks, ticks, *_SIZE, logarithmic=True)
    learnt = f"expected after {found['answers']} answers of each application"
    after = svg.Chart(540, learnt, label, ticks, ticks, *_SIZE, logarithmic=True)
    parts: list[str] = []
    shares = []
    for chart, fixed in ((before, found["profile"]), (after, None)):
        parts += svg.draw_axes(chart)
        parts += _draw_band(chart)
        near = 0
        for model, learnt_tokens, true in points:
            expected = learnt_tokens if fixed is None else fixed
            near += 0.5 <= true / expected <= 2.0  # noqa: PLR2004 - a factor of two
            x, y = chart.x(_clamp(expected, ticks)), chart.y(_clamp(true, ticks))
            style = 'class="dot" r="2.6"' if model == "terse" else 'class="ring" r="3.4"'
            parts.append(f'  <circle {style} cx="{x:.1f}" cy="{y:.1f}"/>')
        shares.append(near / len(points))
        words = f"{shares[-1]:.0%} within a factor of two (shaded)"
        parts.append(svg.draw_text(chart.left + 8, svg.TOP + 18, words, "soft"))
    return svg.draw_charts(
        _HEIGHT,
        "How long an answer will be is learnt from those before it",
        "Tokens of an answer (up) against what was expected of it. Dots: a terse model, rings: a "
        "verbose one",
        f"within a factor of two: {shares[0]:.0%} by the profile, {shares[1]:.0%} once learnt",
        _STYLE,
        parts,
        "simulated: 20 applications on two models, deviation of log length 0.45 within one and 0.9 "
        "between, 60% of clients cap at 128 to 512",
    )


def _read(part: str) -> Any:
    return json.loads(MEASURED.read_text(encoding="utf-8"))[part]


def _clamp(value: float, ticks: Sequence[float]) -> float:
    return min(max(value, ticks[0]), ticks[-1])


def _draw_level(chart: svg.Chart, value: float, words: str) -> str:
    y, right = chart.y(value), chart.right
    line = f'  <line class="level" x1="{chart.left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
    beside = y - 6 if y > svg.TOP else y + 16
    return f"{line}\n{svg.draw_text(chart.left + 4, beside, words, 'soft')}"


def _draw_band(chart: svg.Chart) -> Iterator[str]:
    low, high = chart.x_ticks[0], chart.x_ticks[-1]
    edge = ((low, 2 * low), (high / 2, high), (high, high), (high, high / 2), (2 * low, low))
    corners = [*edge, (low, low)]
    joined = " ".join(f"{chart.x(x):.1f},{chart.y(y):.1f}" for x, y in corners)
    yield f'  <polygon class="band" points="{joined}"/>'
    ends = f'x1="{chart.x(low):.1f}" y1="{chart.y(low):.1f}" x2="{chart.x(high):.1f}"'
    yield f'  <line class="level" {ends} y2="{chart.y(high):.1f}"/>'
