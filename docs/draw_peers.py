"""The gateway beside its peers, a table and a picture, from docs/peers.json.

That file is what `python -m tests.bench peers --json` prints; `make bench-peers ARGS=--json` makes
it anew. Bars are on a logarithmic scale, because what is compared lies a hundredfold apart.
"""

# ruff: noqa: INP001 - a script beside the pages

import json
from collections.abc import Iterator
from math import log10
from pathlib import Path
from typing import Any, NamedTuple

import svg

_RESULT = Path(__file__).parent / "peers.json"
_LEFT, _BAR_WIDTH = 130, 300
_ROW, _TOP = 26, 96
_OURS = "joulegate"
_OTHERS = "taken by others, %"
_MOST_TAKEN = 10.0
_STEADY = ("CPU", "resident", "broken", _OTHERS)
"""What still means something where others had much of the core."""

_STYLE = svg.build_style(
    svg.HEADS
    + """
    .bar { fill: #8c959f }
    .ours { fill: #0969da }""",
    """
      .bar { fill: #6e7681 }
      .ours { fill: #58a6ff }""",
    dark_ink="#e6edf3",
    dark_edge="#30363d",
)


class _Panel(NamedTuple):
    left: int
    figure: str
    title: str


def _load() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(_RESULT.read_text(encoding="utf-8"))
    return result


def _panels() -> tuple[_Panel, _Panel]:
    return (
        _Panel(20, "unary: CPU, us/request", "CPU per unary request, µs, less is better"),
        _Panel(500, "200 streams: CPU, us/chunk", "CPU per streamed chunk, µs, less is better"),
    )


def peers_table() -> str:
    """Return the figures as a table, medians with the lowest and highest round."""
    result = _load()
    peers = result["peers"]
    figures = list(dict.fromkeys(figure for seen in peers.values() for figure in seen))
    taken = max(seen[_OTHERS]["median"] for seen in peers.values())
    if taken > _MOST_TAKEN:
        figures = [name for name in figures if any(word in name for word in _STEADY)]
    lines = ["| figure | " + " | ".join(peers) + " |", "|---" * (len(peers) + 1) + "|"]
    for figure in figures:
        cells = (_cell(seen.get(figure)) for seen in peers.values())
        lines.append(f"| {figure.replace('us/', 'µs/')} | " + " | ".join(cells) + " |")
    machine = result["machine"]
    told = f"{machine['cpu']}; {machine['system']}; {machine['python']}; load before: "
    text = "\n".join(lines) + f"\n\n{told}{machine['load before']}."
    if taken > _MOST_TAKEN:
        text += (
            f" Other processes had up to {taken:.0f}% of the core meanwhile: rates and times are"
            " left out, and CPU is above what a quiet machine shows, the gateway's most (it touches"
            " the most memory)."
        )
    return text


def _cell(figure: dict[str, float] | None) -> str:
    if figure is None:
        return "-"
    values = [_number(figure[key]) for key in ("median", "low", "high")]
    return values[0] if values[1] == values[2] else f"{values[0]} ({values[1]} to {values[2]})"


def _number(value: float) -> str:
    if abs(value) >= 100.0:  # noqa: PLR2004 - digits worth showing
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def peers_picture() -> str:
    """Return the SVG's text; the same on every machine."""
    peers = _load()["peers"]
    title = "The gateway beside its peers, on one core in one run"
    height = _TOP + _ROW * len(peers) + 44
    told = "; ".join(
        f"{panel.title}: "
        + ", ".join(
            f"{name} {_number(seen[panel.figure]['median'])}"
            for name, seen in peers.items()
            if panel.figure in seen
        )
        for panel in _panels()
    )
    source = "Logarithmic scale; figures are medians of interleaved rounds"
    parts = [svg.draw_text(20, 34, title, "title")]
    for panel in _panels():
        parts += _draw_panel(panel, peers)
    parts.append(svg.draw_text(20, height - 14, source, "soft"))
    return svg.draw_frame((svg.WIDTH, height), title, f"{told}.", _STYLE, parts)


def _draw_panel(panel: _Panel, peers: dict[str, Any]) -> Iterator[str]:
    yield svg.draw_text(panel.left, _TOP - 24, panel.title, "head")
    values = {
        name: seen[panel.figure]["median"] for name, seen in peers.items() if panel.figure in seen
    }
    low, high = min(values.values()) / 3.0, max(values.values())
    for row, name in enumerate(peers):
        y = _TOP + row * _ROW
        yield svg.draw_text(panel.left, y + 14, name, "")
        left = panel.left + _LEFT - 40
        if name not in values:
            yield svg.draw_text(left, y + 14, "not measured", "soft")
            continue
        width = _BAR_WIDTH * log10(values[name] / low) / log10(high / low)
        kind = "bar ours" if name == _OURS else "bar"
        yield f'  <rect class="{kind}" x="{left}" y="{y}" width="{width:.1f}" height="18" rx="2"/>'
        yield (
            f'  <text class="soft" x="{left + width + 6:.1f}" y="{y + 14}">'
            f"{_number(values[name])}</text>"
        )
