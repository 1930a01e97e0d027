"""Training from a decision log with feedback: as good as labels, and plain about what lacks."""

import json
import random

import numpy as np
import pytest

from calibration.accuracy.feedback_log import read_feedback
from calibration.accuracy.routing_curves import draw_curve
from calibration.accuracy.train import train_accuracy
from calibration.tables.columns import BadInput
from gateway.scheduling.text_features import extract_text_features
from tests.unit.calibration.accuracy.test_train_accuracy import FILLER, KINDS

MODELS = ("small", "large")


def make_prompts(count, seed):
    rng = random.Random(seed)
    found = []
    for number in range(count):
        words, *shares = KINDS[rng.choice(list(KINDS))]
        text = " ".join(rng.sample(words.split(), 3) + rng.sample(FILLER, 5) + [f"n{number}"])
        found.append((text, shares, [float(rng.random() < share) for share in shares]))
    return found


def write_log(path, prompts, *, text=False):
    rng = random.Random(9)
    with path.open("w") as file:
        for number, (prompt, _, scores) in enumerate(prompts):
            at = rng.randrange(2)
            found = extract_text_features(prompt)
            kept = (
                {"prompt": prompt}
                if text
                else {"features": {"words": found.words, "form": found.form}}
            )
            line = {"id": f"r{number}", "model": MODELS[at], "decision": None, **kept}
            told = {"id": f"r{number}", "score": scores[at], "source": "test", "at": 1.0}
            for one in (line, {"feedback": told | {"score": 0.5}}, {"feedback": told}):
                file.write(json.dumps(one) + "\n")
    return path


def judge(trained, test):
    model = trained.model.make()
    readings = [model.read(extract_text_features(text)) for text, *_ in test]
    predicted = np.array(
        [[model.predict(name, one, 0.5).value for name in MODELS] for one in readings]
    )
    return draw_curve(predicted, np.array([shares for _, shares, _ in test]), np.array([1.0, 4.0]))


@pytest.mark.parametrize("text", [False, True])
def test_feedback_alone_is_within_5_percent_of_labels(tmp_path, text):
    prompts, test = make_prompts(800, 1), make_prompts(300, 2)
    rows = read_feedback([write_log(tmp_path / "log.jsonl", prompts, text=text)])
    assert sorted(rows.models) == sorted(MODELS)
    assert np.isfinite(rows.scores).sum() == len(prompts)
    assert set(rows.scores[np.isfinite(rows.scores)]) == {0.0, 1.0}, "the last word counts"
    order = [rows.models.index(name) for name in MODELS]
    told = train_accuracy(rows.prompts, rows.scores[:, order], MODELS)
    features = [extract_text_features(prompt) for prompt, *_ in prompts]
    labels = np.array([scores for _, _, scores in prompts])
    full = train_accuracy(features, labels, MODELS)
    assert judge(told, test).apgr > 0.95 * judge(full, test).apgr


def test_a_log_without_features_says_what_to_turn_on(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"id": "a", "model": "small"}\n{"feedback": {"id": "a", "score": 1}}\nnot json\n'
    )
    with pytest.raises(BadInput, match=r"turn on log\.features"):
        read_feedback([path])
