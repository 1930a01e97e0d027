"""`joulegate accuracy train | predict`: what is learnt, held out, written, and served."""

import csv
import json
import random
from array import array

import numpy as np
import pytest
from typer.testing import CliRunner

from calibration.accuracy.routing_curves import (
    compute_ece,
    draw_curve,
    list_reliability,
)
from calibration.accuracy.score_calibration import evaluate_points, fit_points
from calibration.cli import app
from gateway.accuracy_profile import HeadWeights, JointSurface, pack_floats
from gateway.profile import load_profile
from gateway.scheduling.text_features import extract_text_features

KINDS = {
    "mathematics": ("integral derivative equation solve sum root", 0.25, 0.9),
    "chat": ("hello weather friend joke story nice", 0.9, 0.92),
    "law": ("court contract statute judge appeal tort", 0.5, 0.6),
}
FILLER = ["the", "of", "a", "about", "please", "tell", "me", "now", "today", "it", "is"]


def write_rows(path, count, seed, *, long=False):
    rng = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["q", "kind", *(("model", "correct") if long else ("one", "two"))])
        for number in range(count):
            kind = rng.choice(list(KINDS))
            words, small, large = KINDS[kind]
            text = rng.sample(words.split(), 3) + rng.sample(FILLER, 5) + [f"n{number}"]
            rng.shuffle(text)
            labels = [int(rng.random() < share) for share in (small, large)]
            prompt = " ".join(text)
            if long:
                writer.writerow([prompt, kind, "phi-3-mini", labels[0]])
                writer.writerow([prompt, kind, "mistral-7b", labels[1]])
            else:
                writer.writerow([prompt, kind, *labels])
    return path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["accuracy", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("form", ["mixture", "prompt", "task"])
def test_what_is_trained_is_what_serves(tmp_path, form):
    out = tmp_path / "profile.json"
    rows = write_rows(tmp_path / "rows.csv", 600, 1)
    told = run(
        "train", rows, "--prompt", "q", "--task", "kind", "--form", form, "--out", out, "--json",
        "--label", "phi-3-mini=one", "--label", "mistral-7b=two", "--report", tmp_path / "r.json",
    )  # fmt: skip
    shown = json.loads(told.stdout)
    overall = shown["routing"]["overall"]
    assert overall["trained"]["apgr"] > 0.65
    assert overall["shuffled_mean_of_20"]["apgr"] == pytest.approx(0.5, abs=0.02)
    assert overall["oracle"]["apgr"] > overall["trained"]["apgr"]
    assert max(one["ece"] for one in shown["models"].values()) < 0.1
    assert json.loads((tmp_path / "r.json").read_text())["form"] == form
    loaded = load_profile(out)
    assert loaded.models["phi-3-mini"].accuracy.default == pytest.approx(
        shown["models"]["phi-3-mini"]["share"]
    )
    tried = tmp_path / "try.csv"
    tried.write_text("q\nsolve the integral equation\nhello friend nice joke\n")
    run("predict", tried, "--profile", out, "--prompt", "q", "--out", tmp_path / "p.csv")
    with (tmp_path / "p.csv").open() as file:
        maths, chat = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert maths["mistral-7b"] - maths["phi-3-mini"] > 0.3
    assert abs(chat["mistral-7b"] - chat["phi-3-mini"]) < 0.2
    model = loaded.prompt_accuracy
    reading = model.read(extract_text_features("solve the integral equation"))
    served = model.predict("phi-3-mini", reading, loaded.models["phi-3-mini"].accuracy.default)
    assert served.value == pytest.approx(maths["phi-3-mini"], abs=1e-6)
    if form != "prompt":
        assert model.kinds.names[reading.kinds.index(max(reading.kinds))] == "mathematics"


@pytest.mark.parametrize("calibration", ["joint", "platt", "isotonic"])
def test_each_calibration_serves_what_it_said(tmp_path, calibration):
    out = tmp_path / "profile.json"
    rows = write_rows(tmp_path / "rows.csv", 400, 2)
    told = run(
        "train", rows, "--prompt", "q", "--task", "kind", "--calibration", calibration,
        "--out", out, "--json", "--label", "phi-3-mini=one", "--label", "mistral-7b=two",
    )  # fmt: skip
    shown = json.loads(told.stdout)
    assert set(shown["calibration"].values()) == {calibration}
    assert shown["mix"] in (0.3, 0.5, 0.7)
    model = load_profile(out).prompt_accuracy
    reading = model.read(extract_text_features("solve the integral equation"))
    small, large = (model.predict(name, reading, 0.5).value for name in model.heads)
    assert small == pytest.approx(0.25, abs=0.2)
    assert large == pytest.approx(0.9, abs=0.1)


def test_a_head_is_calibrated_in_one_way():
    surface = JointSurface((0.0,) * 6, (0.0, 1.0), (0.0, 1.0))
    words = pack_floats(array("f", [0.0]))
    for given in ({}, {"joint": surface, "calibration": [(0.0, 0.5)]}):
        with pytest.raises(ValueError, match="points or a joint one"):
            HeadWeights(0.5, 0.5, words, [], **given).make()
    falling = JointSurface((0.0,) * 6, (1.0, 0.0), (0.0, 1.0))
    with pytest.raises(ValueError, match="must rise"):
        HeadWeights(0.5, 0.5, words, [], joint=falling).make()


def test_long_form_teaches_the_same(tmp_path):
    shown = []
    for long in (False, True):
        rows = write_rows(tmp_path / f"{long}.csv", 300, 4, long=long)
        labels = [] if long else ["--label", "mistral-7b=two", "--label", "phi-3-mini=one"]
        told = run("train", rows, "--prompt", "q", *labels, "--out", tmp_path / "p.json", "--json")
        shown.append(json.loads(told.stdout)["models"]["mistral-7b"])
    assert shown[0] == shown[1]


def test_what_cannot_be_trained_is_said(tmp_path):
    rows = write_rows(tmp_path / "rows.csv", 60, 1)
    out = ("--out", tmp_path / "p.json", "--prompt", "q")
    assert "MODEL=COLUMN" in run("train", rows, *out, code=2).output
    label = ("--label", "phi-3-mini=one")
    told = run("train", rows, *out, *label, "--form", "task", code=2)
    assert "needs a column of tasks" in told.output
    few = write_rows(tmp_path / "few.csv", 20, 1)
    assert "at least 50" in run("train", few, *out, *label, code=2).output
    assert "no score from 0 to 1" in run("train", rows, *out, "--label", "a=kind", code=2).output
    other = tmp_path / "lengths.json"
    wide = ("--from", "labels", "--label-columns", "phi-3-mini=one")
    run("set", rows, *wide, "--profile", "shipped", "--out", other)
    assert "no accuracy by prompt" in run("predict", rows, "--profile", other, code=2).output
    assert not (tmp_path / "p.json").exists()


def test_setting_needs_no_word_of_its_own(tmp_path):
    scores = tmp_path / "scores.csv"
    scores.write_text("model,accuracy\nphi-3-mini,0.5\n")
    for words in ((), ("set",)):
        told = run(*words, scores, "--profile", "shipped", "--json")
        assert json.loads(told.stdout)["changes"][0]["new"] == 0.5


def test_a_curve_of_two_models_by_hand():
    predicted = np.array([[0.5, 0.9], [0.5, 0.4], [0.2, 0.3], [0.9, 0.9]])
    scores = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    curve = draw_curve(predicted, scores, np.array([1.0, 4.0]))
    assert curve.quality.tolist() == [0.5, 0.75, 1.0, 1.0, 0.75]
    assert curve.cost.tolist() == [0.25, 0.4375, 0.625, 0.8125, 1.0]
    assert curve.apgr == pytest.approx((0 / 2 + 1 + 2 + 2 + 1 / 2) / 4)
    assert curve.find_cost(1.0) == 0.4375


def test_a_sweep_over_three_models_ends_at_the_cheapest_and_the_best():
    rng = np.random.default_rng(0)
    truth = rng.random((400, 3)) * [0.6, 0.8, 1.0]
    scores = (rng.random((400, 3)) < truth).astype(float)
    curve = draw_curve(truth, scores, np.array([1.0, 2.0, 4.0]))
    assert (curve.cost[0], curve.cost[-1]) == (0.25, 1.0)
    assert curve.apgr > 0.5
    assert curve.aiq > (curve.weak + curve.strong) / 2


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_a_calibration_mends_what_is_too_sure(kind):
    rng = np.random.default_rng(1)
    truth = rng.random(4000)
    scores = (rng.random(4000) < truth).astype(float)
    told = np.clip(3.0 * truth - 1.0, 0.0, 1.0)
    points = fit_points(told, scores, kind)
    mended = evaluate_points(points, told)
    assert compute_ece(list_reliability(told, scores)) > 0.15
    assert compute_ece(list_reliability(mended, scores)) < 0.04
    assert [y for _, y in points] == sorted(y for _, y in points)
