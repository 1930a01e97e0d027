"""Training from feedback alone is nearly as good as from labels: the same prompts, judged once."""

import json
import random

import pytest

from gateway.scheduling.text_features import extract_text_features
from tests.lab.bandit_month import MODELS, draw_texts
from tests.lab.judged_training import (
    measure_always,
    measure_best,
    measure_choices,
    train_accuracy,
    train_on_labels,
)

ROWS = 3000


def write_log(log):
    rng = random.Random(4)
    with log.open("w") as lines:
        for number, (text, prompt) in enumerate(draw_texts(11, ROWS)):
            # Whoever was drawn by exploration answered, and somebody judged that answer.
            name = rng.choice(MODELS)
            found = extract_text_features(text)
            features = {"words": sorted(found.words), "form": found.form}
            told = {"id": str(number), "model": name, "features": features}
            lines.write(json.dumps(told) + "\n")
            said = {"id": str(number), "score": prompt.scores[name], "source": "judge", "at": 0}
            lines.write(json.dumps({"feedback": said}) + "\n")


@pytest.mark.slow
def test_feedback_alone_routes_within_a_twentieth_of_labels(tmp_path):
    log, one, two = (tmp_path / name for name in ("decisions.jsonl", "one.json", "two.json"))
    train_on_labels(draw_texts(11, ROWS), tmp_path / "labels.csv", one)
    write_log(log)
    train_accuracy(log, "--from-log", "--out", two)
    by_labels, by_feedback = measure_choices(one), measure_choices(two)
    always = measure_always()
    assert measure_best() < by_labels < always
    assert by_feedback <= 1.05 * by_labels
    # And of what labels gain over the best single model nearly all is there.
    assert always - by_feedback > 0.75 * (always - by_labels)
