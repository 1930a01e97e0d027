"""`joulegate plot`: what it writes, what it refuses, and what it leaves alone."""

import re
from types import SimpleNamespace

import msgspec
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from calibration.cli import app
from calibration.plots import gallery
from calibration.plots.accuracy_pictures import draw_accuracy
from calibration.plots.accuracy_report import read_accuracy_report
from gateway import profile

pytestmark = pytest.mark.slow


NO_ROWS = ("tradeoff", "sensitivity", "triangle", "lengths", "coefficients")


def call(*arguments):
    """Run it; returns exit code, stdout, stderr."""
    result = CliRunner().invoke(app, ["plot", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def frame(model, size=120, seed=0, **other):
    rng = np.random.default_rng(seed)
    i, o = rng.choice([32, 128, 512, 2048], size), rng.choice([16, 64, 256, 1024], size)
    noise = 1 + 0.02 * rng.standard_normal((2, size))
    columns = {
        "model": model, "tokens_in": i, "tokens_out": o,
        "seconds": (0.1 + 0.001 * i + 0.02 * o) * noise[0],
        "joules": (20 + 0.05 * i + 2.0 * o) * noise[1],
    }  # fmt: skip
    return pd.DataFrame({**columns, **other})


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    pd.concat([frame("phi-3-mini"), frame("stranger", joules=np.nan)]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def drawn(rows, accuracy, tmp_path_factory):
    """All pictures of the shipped profile and some rows."""
    out = tmp_path_factory.mktemp("out") / "pictures"
    return out, call("--rows", rows, "--accuracy", accuracy, "--out", out)


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory):
    """What training on a few labels reports, in two groups of tasks."""
    folder, rng = tmp_path_factory.mktemp("accuracy"), np.random.default_rng(2)
    prompts, path = folder / "labels.csv", folder / "report.json"
    task = rng.choice(["exam/law", "talk/joke"], 700)
    share = np.where(task == "exam/law", 0.2, 0.9)
    table = {
        "prompt": [f"{one.replace('/', ' ')} w{rng.integers(40)}" for one in task],
        "task": task, "small": rng.random(700) < share, "large": rng.random(700) < 0.9,
    }  # fmt: skip
    pd.DataFrame(table).astype({"small": int, "large": int}).to_csv(prompts, index=False)
    words = ["train", prompts, "--task", "task", "--label", "small=small", "--label", "large=large"]
    words += ["--out", folder / "profile.json", "--report", path]
    done = CliRunner().invoke(app, ["accuracy", *map(str, words)])
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture(scope="module")
def twins(shipped, tmp_path_factory):
    path = tmp_path_factory.mktemp("twins") / "twins.json"
    phi = shipped.models["phi-3-mini"]
    models = {"a $name_": phi, "b": phi, "mistral": shipped.models["mistral-7b"]}
    profile.save_profile(models, path)
    return path


def test_every_picture_is_written_in_both_formats(drawn):
    out, (code, text, errors) = drawn
    assert (code, errors) == (0, "")
    names = {f"{name}.{kind}" for name in gallery.NAMES for kind in ("png", "svg")}
    assert {path.name for path in out.iterdir()} == names
    for name in names:
        assert f"wrote {out / name}" in text
        raw = (out / name).read_bytes()
        assert raw.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("tradeoff", ["Energy per request (J)", "Time per request (s)", "Accuracy (% right)",
                      "Pareto front", "phi-3-mini", "32 tokens in, 45 out", "outside the fitted"]),
        ("sensitivity", ["Share of requests (%)", "relative", "fair-ols", "hybrid",
                         "10 built-in lengths", "Weight of energy (others split evenly)",
                         "falcon-7b (never wins here)"]),
        ("triangle", ["accuracy only", "energy only", "time only", "mistral-7b"]),
        ("lengths", ["Tokens in (prompt)", "Tokens out (new tokens)", "fitted range",
                     "accuracy 0.5, energy 0.3, time 0.2"]),
        ("predicted", ["Predicted by the profile (s)", "Measured joules (J)", "120 rows",
                       "Predicted by a fit to these rows (s)", "no measured joules"]),
        ("residuals-seconds", ["Measured − predicted (s)", "Tokens in", "middle 80%"]),
        ("residuals-joules", ["Measured − predicted (J)", "Predicted joules (J)"]),
        ("coefficients", ["seconds: b1 × in", "s/token", "J/token", "fit to the rows", "stranger"]),
    ],
)  # fmt: skip
def test_labels_and_units_stand_as_text_in_the_svg(drawn, name, texts):
    svg = (drawn[0] / f"{name}.svg").read_text()
    for text in texts:
        assert text in svg


def test_predicted_marks_rows_by_concurrency(tmp_path):
    path, out = tmp_path / "rows.csv", tmp_path / "out"
    pd.concat([frame("phi-3-mini", running=r, seed=r) for r in (0, 3, 20)]).to_csv(path)
    code, _, errors = call("--only", "predicted", "--rows", path, "--out", out, "--format", "svg")
    assert code == 0, errors
    svg = (out / "predicted.svg").read_text()
    for label in ("1 at a time", "2 to 4", "17 and more"):
        assert label in svg
    assert "5 to 16" not in svg


def test_models_differ_by_more_than_colour(drawn):
    svg = (drawn[0] / "triangle.svg").read_text()
    patterns = dict(re.findall(r'<pattern id="(\w+)".*?<path d="(.*?)"', svg, re.DOTALL))
    assert len(set(patterns.values())) >= 2


def test_the_same_inputs_give_the_same_bytes(drawn, rows, tmp_path):
    names = ("tradeoff", "triangle", "predicted")
    only = [part for name in names for part in ("--only", name)]
    assert call("--rows", rows, "--out", tmp_path, *only)[0] == 0
    for name in names:
        for kind in ("png", "svg"):
            again = (tmp_path / f"{name}.{kind}").read_bytes()
            assert again == (drawn[0] / f"{name}.{kind}").read_bytes()
            assert b"dc:date" not in again


def test_curves_show_each_group_beside_what_it_is_compared_with(accuracy):
    found = read_accuracy_report(accuracy)
    assert set(found.routing) == {"overall", "exam", "talk"}
    reliability, curves = draw_accuracy(SimpleNamespace(accuracy=found))
    overall = curves.figure.axes[0]
    assert len(overall.lines) == 5  # trained, table, oracle, random, always one model
    ends = overall.lines[-1].get_ydata()
    one = found.routing["overall"]
    assert list(ends) == [one.always_cheapest, one.always_most_accurate]
    (areas,) = curves.tables
    assert areas.rows[0][0] == "overall"
    trained, _, shuffled, oracle = map(float, areas.rows[0][2:])
    assert shuffled < trained < oracle
    assert len(reliability.figure.axes[0].collections) == 2


def test_what_is_no_report_of_training_is_refused(rows, tmp_path):
    code, _, errors = call("--accuracy", rows, "--out", tmp_path)
    assert code == 2
    assert "not a report of accuracy train" in errors


def test_without_rows_it_says_what_is_not_drawn(tmp_path):
    code, text, _ = call("--out", tmp_path, "--format", "svg")
    assert code == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.svg" for name in NO_ROWS}
    for name in ("reliability", "quality-cost"):
        assert f"not drawn: {name}: no --accuracy" in text
    for name in set(gallery.NAMES) - {*NO_ROWS, "reliability", "quality-cost"}:
        assert f"not drawn: {name}: needs measured rows: --rows FILE" in text


def test_a_model_that_the_profile_lacks_and_one_without_joules_are_named(drawn):
    _, (_, text, _) = drawn
    assert "No measured joules in the rows of stranger." in text
    assert "The rows' model stranger is not in the profile" in text
    assert "No rows of mistral-7b" in text


def test_models_that_coincide_are_named(twins, tmp_path):
    code, text, _ = call(
        "--profile", twins, "--out", tmp_path, "--format", "svg", "--only", "tradeoff",
        "--only", "lengths",
    )  # fmt: skip
    assert code == 0
    assert "a $name_ and b cost the same wherever shown" in text
    assert "a $name_ and b coincide" in text
    svg = (tmp_path / "tradeoff.svg").read_text()
    assert "a $name_ = b" in svg
    assert "(coincide)" in svg
    assert "b (never wins here)" in (tmp_path / "lengths.svg").read_text()


def test_one_model_alone_is_drawn(shipped, tmp_path):
    path = tmp_path / "one.json"
    bare = shipped.models["phi-3-mini"]
    profile.save_profile({"only": bare}, path)
    code, text, _ = call("--profile", path, "--out", tmp_path / "out", "--format", "png")
    assert code == 0
    assert "The profile has one model, only: it wins everywhere." in text
    assert len(list((tmp_path / "out").iterdir())) == len(NO_ROWS)


def test_costs_that_span_decades_have_logarithmic_axes(shipped, tmp_path):
    def times(model, factor):
        def scaled(cost):
            new = [value * factor for value in cost.coefficients]
            return profile.CostRegression(cost.form, [abs(value) for value in new])

        return profile.ModelProfile(
            model.accuracy, scaled(model.seconds), scaled(model.joules), model.tokens
        )

    phi = shipped.models["phi-3-mini"]
    path = tmp_path / "wide.json"
    profile.save_profile({"small": phi, "large": times(phi, 1000.0)}, path)
    code, text, _ = call(
        "--profile", path, "--out", tmp_path, "--only", "tradeoff", "--only", "coefficients",
        "--format", "svg",
    )  # fmt: skip
    assert code == 0
    svg = (tmp_path / "tradeoff.svg").read_text()
    assert ">100,000<" in svg
    assert ">1,000<" in svg
    assert "The profile has no covariance for large: no interval." in text


def test_a_prompt_file_gives_the_shares(tmp_path):
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt\nhello there\nwhat is a joule\n")
    code, _, _ = call(
        "--prompts", prompts, "--out", tmp_path, "--only", "sensitivity", "--format", "svg"
    )
    assert code == 0
    svg = (tmp_path / "sensitivity.svg").read_text()
    assert "2 prompts of prompts.csv, 9 to 12 tokens in" in svg


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--profile", "none.json"], "none.json: No such file or directory"),
        (["--profile", "bad.json"], "bad.json: version 2 is not known here"),
        (["--rows", "none.csv"], "none.csv: "),
        (["--rows", "empty.csv"], "empty.csv"),
        (["--rows", "columns.csv"], "columns.csv: no column 'tokens_in'"),
        (["--rows", "text.csv"], "1 of 2 rows cannot be used"),
        (["--rows", "negative.csv"], "joules is negative"),
        (["--prompts", "none.csv"], "none.csv: No such file"),
        (["--prompts", "columns.csv"], "no column for prompts"),
        (["--only", "nothing"], "--only nothing: is none of tradeoff, "),
        (["--only", "predicted"], "--only predicted: needs measured rows: --rows FILE"),
        (["--format", "pdf"], "--format pdf: is none of png, svg, both"),
        (["--length", "12"], "--length 12: want IN:OUT"),
        (["--length", "0:5"], "--length 0:5: want IN:OUT"),
        (["--weights", "1,2"], "--weights 1,2: want ACCURACY,ENERGY,TIME"),
        (["--weights", "0,0,0"], "--weights 0,0,0: weights must not all be zero"),
        (["--weights", "nan,1,1"], "--weights nan,1,1: weights must be finite"),
        (["--length", "1:1"] + ["--length", "2:2"] * 4, "--length: 5 given, at most 4"),
        (["--out", "empty.csv"], "--out empty.csv: is not a directory"),
    ],
)
def test_bad_input_is_one_message_and_leaves_files_alone(
    tmp_path, monkeypatch, arguments, complaint
):
    monkeypatch.chdir(tmp_path)
    files = {
        "bad.json": '{"version": 2}',
        "empty.csv": "",
        "columns.csv": "a,b\n1,2\n",
        "text.csv": "tokens_in,tokens_out,seconds\n1,2,three\n1,2,3\n",
        "negative.csv": "tokens_in,tokens_out,seconds,joules\n1,2,3,-4\n",
        "pictures/tradeoff.png": "old",
    }
    (tmp_path / "pictures").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    code, text, errors = call(*arguments)
    assert code == 2
    assert text == ""
    assert errors.startswith("joulegate: ")
    assert errors.count("\n") == 1
    assert complaint in errors
    found = {
        str(path.relative_to(tmp_path)): path.read_text()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert found == files


def test_a_floored_prediction_is_marked_as_no_real_figure(shipped, tmp_path):
    phi = shipped.models["phi-3-mini"]
    joules = msgspec.structs.replace(phi.joules, coefficients=[-1e6, 0.0, 0.0], covariance=None)
    models = {**shipped.models, "phi-3-mini": msgspec.structs.replace(phi, joules=joules)}
    profile.save_profile(models, tmp_path / "below.json")
    code, text, _ = call(
        "--profile", tmp_path / "below.json", "--out", tmp_path, "--only", "tradeoff",
        "--format", "svg", "--length", "32:45",
    )  # fmt: skip
    assert code == 0
    assert "joules of phi-3-mini are below 0 and floored" in text
    assert "floored: no real figure" in (tmp_path / "tradeoff.svg").read_text()
