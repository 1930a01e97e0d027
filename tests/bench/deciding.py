"""`python -m tests.bench deciding`: what docs/deciding.md's pictures show, as JSON.

Packing against load on the lab's virtual clock, and expected against true answer lengths of a
simulated service. The same numbers on every machine: docs/measured/deciding.json keeps them.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.length_learner import LengthLearner
from tests.bench.report import say
from tests.lab import packing

RATES = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0)
APPLICATIONS, ANSWERS = 20, 30
MODELS = {"verbose": 5.5, "terse": 4.2}
"""Mean of ln(tokens) over applications."""
WITHIN, BETWEEN = 0.45, 0.9
"""Deviation of ln(tokens) within an application and between them."""
PROFILE = AnswerLength.of_mean(44.4)
CAPS = (128, 256, 512)
CAPPED = 0.6
"""Share of the clients that cap their answers."""
_SHOWN_EACH = 6


def measure_packing() -> list[dict[str, float]]:
    """Joules and time per token of packing, each as a share of spreading's."""
    rows = []
    for rate in RATES:
        say(f"packing at {rate:g} requests/s")
        packed, spread = packing.packed_costs(rate), packing.spread_costs(rate)
        rows.append(
            {
                "rate": rate,
                "joules": round(packed.joules_against(spread), 4),
                "p95": round(packed.p95_against(spread), 4),
                "backends": packed.used,
            }
        )
    return rows


def measure_lengths() -> dict[str, Any]:
    """Answers of each application, and what was expected after `ANSWERS` of them."""
    rng = random.Random(1)
    learner = LengthLearner()
    offsets = [rng.gauss(0.0, BETWEEN) for _ in range(APPLICATIONS)]
    asked = [(model, at) for at in range(APPLICATIONS) for model in MODELS]
    for turn in range(ANSWERS):
        for model, at in asked:
            tokens = max(1, round(rng.lognormvariate(MODELS[model] + offsets[at], WITHIN)))
            cap = rng.choice(CAPS) if rng.random() < CAPPED else 1 << 30
            learner.observe(
                model, f"{at}", PROFILE, min(tokens, cap), cut=tokens >= cap, at_seconds=1e9 + turn
            )
    points = []
    for model, at in asked:
        learnt = learner.predict(model, f"{at}", PROFILE)
        length = PROFILE if learnt is None else learnt.length
        expected = length.compute_mean(1.0, 1e9)
        points += [
            [
                model,
                round(expected, 1),
                round(rng.lognormvariate(MODELS[model] + offsets[at], WITHIN)),
            ]
            for _ in range(_SHOWN_EACH)
        ]
    return {
        "profile": round(PROFILE.compute_mean(1.0, 1e9), 1),
        "answers": ANSWERS,
        "points": points,
    }


def main(arguments: list[str]) -> int:
    """Measure; print, or write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench deciding", description=__doc__)
    parser.add_argument("--out", type=Path, help="the file to write; default: print")
    options = parser.parse_args(arguments)
    found = {"packing": measure_packing(), "lengths": measure_lengths()}
    text = json.dumps(found, indent=1) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0
