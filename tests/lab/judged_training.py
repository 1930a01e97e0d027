"""Training on the lab's prompts through the command line, and how well its profiles choose."""

import csv
from collections.abc import Iterable
from pathlib import Path

from typer.testing import CliRunner

from calibration.cli import app
from gateway.profile import load_profile
from gateway.scheduling.text_features import extract_text_features
from tests.lab.bandit_month import MODELS, JudgedPrompt, draw_texts, rank_models, score_models

_ASKED_SEED, _ASKED = 12, 4000


def train_accuracy(*arguments: object) -> None:
    """Run `joulegate accuracy train`."""
    told = CliRunner().invoke(app, ["accuracy", "train", *map(str, arguments)])
    assert told.exit_code == 0, told.output


def train_on_labels(drawn: Iterable[tuple[str, JudgedPrompt]], table: Path, out: Path) -> None:
    """Train on what every model came to on every prompt; `table` is written on the way."""
    with table.open("w", newline="") as rows:
        writer = csv.writer(rows)
        writer.writerow(["prompt", *MODELS])
        for text, prompt in drawn:
            writer.writerow([text, *(prompt.scores[name] for name in MODELS)])
    named = [f"--label={name}={name}" for name in MODELS]
    train_accuracy(table, "--prompt", "prompt", *named, "--out", out)


def measure_choices(profile: Path) -> float:
    """Return the mean objective of who is chosen by a profile, on prompts that it has not seen."""
    model = load_profile(str(profile)).prompt_accuracy
    assert model is not None
    total = 0.0
    for text, prompt in draw_texts(_ASKED_SEED, _ASKED):
        reading = model.read(extract_text_features(text))
        told = {name: model.predict(name, reading, 0.5).value for name in MODELS}
        total += score_models(prompt.chances)[rank_models(told).candidates[0].model]
    return total / _ASKED


def measure_best() -> float:
    """Return the same of whoever is best on each prompt."""
    drawn = draw_texts(_ASKED_SEED, _ASKED)
    return sum(min(score_models(one.chances).values()) for _, one in drawn) / _ASKED


def measure_always() -> float:
    """Return the same of the best single model."""
    return min(
        sum(score_models(one.chances)[name] for _, one in draw_texts(_ASKED_SEED, _ASKED)) / _ASKED
        for name in MODELS
    )
