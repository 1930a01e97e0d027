"""Draw one decision as an SVG: a stacked bar per candidate, from a real decision.

The numbers are the scheduler's own; this file knows only where to put them. Colours are from
Okabe and Ito's palette, told apart with any colour vision; every length also stands there as text.
"""

# ruff: noqa: INP001 - a script beside the pages

import svg

from gateway import profile
from gateway.commands.demo.example_config import make_example_config
from gateway.commands.route import decide_offline
from gateway.scheduling.decision import METRICS, RoutingDecision, ScoredCandidate

PROMPT = "Explain reinforcement learning"
WEIGHTS = {"weight-accuracy": 0.7, "weight-energy": 0.2, "weight-time": 0.1}

_WIDTH = 880
_LEFT = 232
"""Where the bars begin."""
_BAR_WIDTH = 520
_TOP = 128
_ROW = 84
_BAR = 30
_TICK = 0.1

_STYLE = svg.build_style(
    """
    .name { font-size: 16px; font-weight: 600 }
    .soft { fill: #59636e; font-size: 13px }
    .score { font-size: 16px; font-weight: 600 }
    .axis { stroke: #59636e }
    .edge { stroke: #ffffff; stroke-width: 1.5 }
    .inside { fill: #000000; font-size: 13px }
    .accuracy { fill: #56b4e9 }
    .energy { fill: #e69f00 }
    .time { fill: #009e73 }
    .won { fill: none; stroke: #1f2328; stroke-width: 2 }
    .mark { fill: #1f2328 }
    .marked { fill: #ffffff; font-size: 12px; font-weight: 600 }""",
    """
      .axis { stroke: #9198a1 }
      .edge { stroke: #0d1117 }
      .won { stroke: #f0f6fc }
      .mark { fill: #f0f6fc }
      .marked { fill: #0d1117 }""",
    text_pixels=14,
)


def decision() -> RoutingDecision:
    """Decide for `PROMPT` with the shipped profile, as `joulegate route` does."""
    made = decide_offline(
        make_example_config(),
        profile.load_profile(None),
        PROMPT,
        WEIGHTS,
        model="auto",
        max_tokens=None,
    )
    return made.decision


def picture() -> str:
    """Return the SVG's text; the same on every machine."""
    made = decision()
    best = made.candidates[0]
    longest = max(scored.score for scored in made.candidates)
    scale = _BAR_WIDTH / longest
    bottom = _TOP + _ROW * len(made.candidates)
    height = bottom + 100
    weights = (made.weights.accuracy, made.weights.energy, made.weights.time)
    wanted = ", ".join(f"{name} {weight:g}" for name, weight in zip(METRICS, weights, strict=True))
    title = f"“{PROMPT}” goes to {best.model}"
    about = (
        f"{made.policy}; weights {wanted}; {best.tokens_in} tokens in, {best.tokens_out} "
        "expected out; shipped profile"
    )
    told = "; ".join(
        f"{scored.model} scores {scored.score:.4f} ({_sum(scored)})" for scored in made.candidates
    )
    parts = [
        svg.draw_text(24, 38, title, "title"),
        svg.draw_text(24, 62, about, "soft"),
        *_legend(weights),
        *_axis(longest, scale, bottom),
    ]
    for place, scored in enumerate(made.candidates):
        parts += _row(scored, _TOP + place * _ROW, scale, won=scored is best)
    notes = (
        "score: the sum of weight × normalised cost; the lowest wins",
        "energy and time are scaled from best = 0 to worst = 1 among the candidates;",
        "the accuracy cost is 1 − accuracy",
    )
    parts += [
        svg.draw_text(_LEFT, bottom + 46 + 19 * line, note, "soft")
        for line, note in enumerate(notes)
    ]
    description = f"{about}. {told}. The lowest score wins."
    return svg.draw_frame((_WIDTH, height), title, description, _STYLE, parts)


def _legend(weights: tuple[float, float, float]) -> list[str]:
    labels = (
        f"{weights[0]:g} × (1 − accuracy)",
        f"{weights[1]:g} × energy, normalised",
        f"{weights[2]:g} × time, normalised",
    )
    parts = []
    x = _LEFT
    for name, label in zip(METRICS, labels, strict=True):
        parts.append(f'  <rect class="{name}" x="{x}" y="82" width="14" height="14" rx="2"/>')
        parts.append(svg.draw_text(x + 21, 94, label, "soft"))
        x += 36 + round(len(label) * 6.9)
    return parts


def _axis(longest: float, scale: float, y: int) -> list[str]:
    end = _LEFT + longest * scale
    parts = [f'  <line class="axis" x1="{_LEFT}" y1="{y}" x2="{end:.1f}" y2="{y}"/>']
    for tick in range(int(longest / _TICK) + 1):
        x = _LEFT + tick * _TICK * scale
        parts.append(f'  <line class="axis" x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 5}"/>')
        parts.append(svg.draw_text(x, y + 20, f"{tick * _TICK:.1f}", "soft", anchor="middle"))
    return parts


def _row(scored: ScoredCandidate, top: int, scale: float, *, won: bool) -> list[str]:
    parts = [
        svg.draw_text(24, top + 14, scored.model, "name"),
        svg.draw_text(
            24,
            top + 34,
            f"predicted {scored.predicted_seconds:.2f} s, {scored.predicted_joules:.0f} J",
            "soft",
        ),
        svg.draw_text(24, top + 52, f"accuracy {scored.accuracy:.3f}", "soft"),
    ]
    x = float(_LEFT)
    for name, term in zip(METRICS, scored.terms, strict=True):
        width = term * scale
        if width:
            parts.append(
                f'  <rect class="{name} edge" x="{x:.2f}" y="{top}" width="{width:.2f}" '
                f'height="{_BAR}"/>'
            )
        if width > len("0.0000") * 8:
            parts.append(
                svg.draw_text(x + width / 2, top + 20, f"{term:.4f}", "inside", anchor="middle")
            )
        x += width
    if won:
        parts.append(
            f'  <rect class="won" x="{_LEFT}" y="{top}" width="{x - _LEFT:.2f}" height="{_BAR}"/>'
        )
        parts.append(
            f'  <rect class="mark" x="{x + 84:.2f}" y="{top + 4}" width="66" height="22" rx="11"/>'
        )
        parts.append(svg.draw_text(x + 117, top + 19, "chosen", "marked", anchor="middle"))
    parts.append(svg.draw_text(x + 12, top + 21, f"{scored.score:.4f}", "score"))
    parts.append(svg.draw_text(_LEFT, top + _BAR + 19, _sum(scored), "soft"))
    return parts


def _sum(scored: ScoredCandidate) -> str:
    terms = zip(METRICS, scored.terms, strict=True)
    return " + ".join(f"{name} {term:.4f}" for name, term in terms)
