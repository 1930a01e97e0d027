"""`joulegate lengths`: what is learnt of the words, and that predicting is what serves."""

import csv
import gzip
import json
import math
import random

import numpy as np
import pytest
from typer.testing import CliRunner

from calibration.cli import app
from calibration.lengths.labelled_prompts import read_prompts
from calibration.lengths.train import train_lengths
from gateway import profile
from gateway.scheduling.text_features import extract_text_features

TOPICS = {"haiku": 3.0, "essay": 6.5, "list": 5.0, "yes or no": 1.5}


def rows(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        topic = rng.choice(list(TOPICS))
        subject = rng.choice(["rivers", "kings", "bread", "stars", "ships", "towns"])
        prompt = f"Write me a {topic} about {subject} {rng.randint(1, 99)}"
        yield prompt, max(1, round(rng.lognormvariate(TOPICS[topic], 0.4)))


def write(path, count, seed):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "tokens"])
        writer.writerows(rows(count, seed))
    return path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["lengths", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_trained_and_predicted_through_the_serving_code(tmp_path):
    train, out = write(tmp_path / "train.csv", 400, 1), tmp_path / "profile.json"
    told = run(
        "train", train, "--prompt", "question", "--label", "mistral-7b=tokens",
        "--label", "other=tokens", "--out", out, "--json",
    )  # fmt: skip
    shown = json.loads(told.stdout)["models"]
    assert shown["mistral-7b"]["r2"] > 0.8
    assert (shown["mistral-7b"]["has_costs"], shown["other"]["has_costs"]) == (True, False)
    loaded = profile.load_profile(out)
    assert loaded.models["mistral-7b"].output.form == "lognormal"
    assert set(loaded.models) == set(profile.load_profile(None).models)
    test = write(tmp_path / "test.csv", 200, 2)
    run("predict", test, "--profile", out, "--prompt", "question", "--out", tmp_path / "p.csv")
    with (tmp_path / "p.csv").open() as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["mistral-7b_p50", "mistral-7b_p90", "other_p50", "other_p90"]
    truth = list(rows(200, 2))
    within = [count <= float(row["mistral-7b_p90"]) for row, (_, count) in zip(found, truth)]  # noqa: B905
    assert 0.82 <= sum(within) / len(within) <= 0.97
    errors = [
        abs(math.log(count / float(row["mistral-7b_p50"])))
        for row, (_, count) in zip(found, truth, strict=True)
    ]
    assert sum(errors) / len(errors) < 0.45
    model = loaded.lengths["mistral-7b"].model()
    length = model.predict(extract_text_features(truth[0][0]))
    assert float(found[0]["mistral-7b_p50"]) == pytest.approx(math.exp(length.mu), abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--label", "m"], "want MODEL=COLUMN"),
        (["--label", "m=nope"], "no column 'nope'"),
        (["--label", "m=question"], "is not a count of tokens"),
    ],
)
def test_what_cannot_be_trained_is_2_and_writes_nothing(tmp_path, arguments, said):
    train, out = write(tmp_path / "train.csv", 50, 1), tmp_path / "profile.json"
    result = run("train", train, "--prompt", "question", "--out", out, *arguments, code=2)
    assert said in result.output.replace("\n", " ")
    assert not out.exists()


def test_prompts_are_read_as_every_other_table_is(tmp_path):
    plain, out = write(tmp_path / "train.csv", 50, 1), tmp_path / "profile.json"
    for name, change in (
        ("train.txt", lambda text: "\ufeff" + text.replace("\n", "\r\n")),
        ("semicolons.csv", lambda text: text.replace(",", ";")),
    ):
        path = tmp_path / name
        path.write_text(change(plain.read_text()), encoding="utf-8")
        found = read_prompts(path, "question", {"m": "tokens"})
        assert found.tokens == read_prompts(plain, "question", {"m": "tokens"}).tokens
    path = tmp_path / "train.jsonl"
    path.write_text('{"question": "a", "tokens": 3}\n{"tokens": 4}\n')
    run("train", path, "--prompt", "question", "--label", "m=tokens", "--out", out, code=2)


def test_too_few_rows(tmp_path):
    train, out = write(tmp_path / "train.csv", 5, 1), tmp_path / "profile.json"
    arguments = ["train", train, "--prompt", "question", "--out", out, "--label", "m=tokens"]
    assert "at least 20 needed" in run(*arguments, code=2).output.replace("\n", " ")


def test_features_are_the_same_on_every_machine():
    found = extract_text_features("Count to 3, and count again?")
    assert found.buckets == (1122, 708, 3739, 2925, 3068)  # in the order of the text
    assert found.shape == (math.log1p(6), 0.0, 1.0, 1.0)
    assert extract_text_features("").buckets == ()
    # Bounded, whatever is sent.
    assert len(extract_text_features("words " * 10**6).buckets) <= 3


@pytest.mark.slow
def test_lengths_of_real_answers_by_five_folds(shared_data):
    """R2 of log, absolute error of log and the share within p90, over ten models."""
    path = shared_data / "answer_lengths_train.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        read = list(csv.DictReader(file))
    models = list(read[0])[2:]
    prompts = [row["prompt"] for row in read]
    features = [extract_text_features(prompt) for prompt in prompts]
    folds = np.array_split(np.random.default_rng(0).permutation(len(read)), 5)
    squares, spreads, errors, within = [], [], [], []
    for model in models:
        tokens = [max(1.0, float(row[model])) for row in read]
        logs = np.log(tokens)
        for fold in folds:
            held = set(fold.tolist())
            kept = [at for at in range(len(read)) if at not in held]
            fit = train_lengths([prompts[at] for at in kept], [tokens[at] for at in kept])
            words = fit.regression.model()
            for at in held:
                length = words.predict(features[at])
                error = logs[at] - length.mu
                squares.append(error**2)
                spreads.append((logs[at] - logs.mean()) ** 2)
                errors.append(abs(error))
                within.append(tokens[at] <= length.find_quantile(0.9, 1.0, 1e9))
    assert 1 - sum(squares) / sum(spreads) >= 0.10
    assert sum(errors) / len(errors) <= 0.64
    assert 0.87 <= sum(within) / len(within) <= 0.93
