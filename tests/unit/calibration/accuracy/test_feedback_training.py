"""Training from feedback alone is nearly as good as from labels: the same prompts, judged once."""

import csv
import json
import random

import pytest
from typer.testing import CliRunner

from calibration.cli import app
from gateway.profile import load_profile
from gateway.scheduling.text_features import extract_text_features
from tests.lab.bandit_month import MODELS, draw_texts, rank_models, score_models

ROWS, ASKED = 3000, 4000


def train(*arguments):
    told = CliRunner().invoke(app, ["accuracy", "train", *map(str, arguments)])
    assert told.exit_code == 0, told.output


def measure_choices(profile):
    """Return the mean objective of who is chosen by a profile, on prompts that it has not seen."""
    model = load_profile(profile).prompt_accuracy
    total = 0.0
    for text, prompt in draw_texts(12, ASKED):
        reading = model.read(extract_text_features(text))
        told = {name: model.predict(name, reading, 0.5).value for name in MODELS}
        total += score_models(prompt.chances)[rank_models(told).candidates[0].model]
    return total / ASKED


@pytest.fixture
def files(tmp_path):
    rng = random.Random(4)
    labels, log = tmp_path / "labels.csv", tmp_path / "decisions.jsonl"
    with labels.open("w", newline="") as rows, log.open("w") as lines:
        writer = csv.writer(rows)
        writer.writerow(["prompt", *MODELS])
        for number, (text, prompt) in enumerate(draw_texts(11, ROWS)):
            writer.writerow([text, *(prompt.scores[name] for name in MODELS)])
            # Whoever was drawn by exploration answered, and somebody judged that answer.
            name = rng.choice(MODELS)
            found = extract_text_features(text)
            features = {"words": sorted(found.words), "form": found.form}
            told = {"id": str(number), "model": name, "features": features}
            lines.write(json.dumps(told) + "\n")
            said = {"id": str(number), "score": prompt.scores[name], "source": "judge", "at": 0}
            lines.write(json.dumps({"feedback": said}) + "\n")
    return labels, log


def test_feedback_alone_routes_within_a_twentieth_of_labels(files, tmp_path):
    labels, log = files
    one, two = tmp_path / "labels.json", tmp_path / "feedback.json"
    named = [f"--label={name}={name}" for name in MODELS]
    train(labels, "--prompt", "prompt", *named, "--out", one)
    train(log, "--from-log", "--out", two)
    by_labels, by_feedback = measure_choices(one), measure_choices(two)
    best = sum(min(score_models(one.chances).values()) for _, one in draw_texts(12, ASKED)) / ASKED
    always = min(
        sum(score_models(one.chances)[name] for _, one in draw_texts(12, ASKED)) / ASKED
        for name in MODELS
    )
    assert best < by_labels < always
    assert by_feedback <= 1.05 * by_labels
    # And of what labels gain over the best single model nearly all is there.
    assert always - by_feedback > 0.75 * (always - by_labels)
