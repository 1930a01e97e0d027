"""`joulegate fit` as it is called: what it writes, what it refuses, and what it leaves alone."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from calibration.cli import app
from calibration.fit import merge
from calibration.profile.rows_file import COLUMNS
from gateway import profile
from gateway.scheduling.cost import RegressionForm

NEWER = '{"version": 2, "models": {"a": {"new": true}}}'


def frame(size=200, model="phi-3-mini", seed=0, **other):
    rng = np.random.default_rng(seed)
    i, o = rng.integers(8, 2000, size), rng.integers(8, 1000, size)
    noise = 1 + 0.02 * rng.standard_normal((2, size))
    columns = {
        "run": "r", "cell": "c", "block": 1, "repeat": 1, "request_id": "x", "model": model,
        "backend": "http://b", "tokens_in": i, "tokens_out": o, "cached_tokens": 0,
        "tiktoken_in": np.round(i / 1.1), "seconds": (0.1 + 0.001 * i + 0.02 * o) * noise[0],
        "ttft_seconds": 0.1, "joules": (20 + 0.05 * i + 2.0 * o) * noise[1], "method": "exclusive",
        "running": 0, "waiting": 0, "concurrency": 1, "hardware": "NVIDIA H200",
        "engine": "vllm 0.32.0",
        "at": [f"2026-11-20T00:{s // 60:02}:{s % 60:02}Z" for s in range(size)],
    }  # fmt: skip
    assert list(columns) == list(COLUMNS)
    return pd.DataFrame({**columns, **other})


def call(*arguments):
    """Run it; returns exit code, stdout, stderr."""
    result = CliRunner().invoke(app, ["fit", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    frame(seed=1).to_csv(path, index=False)  # a form too many is taken in 1 seed of 20
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "profile.json"


def test_our_own_rows_become_a_profile_that_the_gateway_loads(rows, out):
    code, text, _ = call(rows, "--out", out, "--accuracy", "0.7")
    assert code == 0
    assert "phi-3-mini: 200 of 200 rows" in text
    assert "95% interval" in text
    model = profile.load_profile(out).get_model("phi-3-mini")
    assert model.accuracy.default == 0.7
    assert model.tokens.ratio == pytest.approx(1.1, rel=0.01)
    for one, b2 in ((model.seconds, 0.02), (model.joules, 2.0)):
        assert one.form is RegressionForm.ADDITIVE
        assert one.coefficients[2] == pytest.approx(b2, rel=0.02)
        assert np.linalg.eigvalsh(one.covariance).min() > 0
        assert one.fitted_range["tokens_in"] == [
            frame(seed=1)["tokens_in"].min(),
            frame(seed=1)["tokens_in"].max(),
        ]
    told = model.provenance
    assert told["hardware"] == "NVIDIA H200"
    assert told["engine"] == "vllm 0.32.0"
    assert told["dates"] == ["2026-11-20T00:00:00Z", "2026-11-20T00:03:19Z"]
    assert told["rows"] == {"read": 200, "seconds": 200, "joules": 200, "unusable": {}}
    assert told["files"][0]["name"] == "rows.csv"
    assert len(told["files"][0]["sha256"]) == 64
    assert told["energy"] == {"exclusive": 200}
    assert told["load"] == "0 other running"


def test_merging_leaves_other_models_and_the_accuracy_alone(rows, out, shipped):
    code, text, _ = call(rows, "--out", out, "--merge", "shipped")
    assert code == 0
    assert "left as they were: falcon-7b, mistral-7b" in text
    written = profile.load_profile(out)
    assert written.models["falcon-7b"] == shipped.models["falcon-7b"]
    assert written.models["phi-3-mini"].accuracy == shipped.models["phi-3-mini"].accuracy
    assert written.models["phi-3-mini"].seconds.n == 200
    frame(model="new", seed=1).to_csv(rows, index=False)
    code, text, _ = call(rows, "--out", out)
    assert code == 0
    again = profile.load_profile(out)
    assert set(again.models) == {*written.models, "new"}
    assert again.models["phi-3-mini"] == written.models["phi-3-mini"]
    assert again.models["new"].accuracy.default == merge.ASSUMED_ACCURACY
    assert again.models["new"].provenance["accuracy"].startswith("ASSUMED")
    assert "accuracy ASSUMED" in text


def test_without_joules_seconds_are_fitted_and_joules_kept(rows, out, shipped):
    frame(joules=np.nan, method="").to_csv(rows, index=False)
    code, _, error = call(rows, "--out", out)
    assert code == 2
    assert "--merge FILE" in error
    assert not out.exists()
    assert call(rows)[0] == 0
    assert call(rows, "--out", out, "--merge", "shipped")[0] == 0
    model = profile.load_profile(out).get_model("phi-3-mini")
    assert model.joules == shipped.models["phi-3-mini"].joules
    assert model.seconds.n == 200
    assert model.provenance["joules"].startswith("kept from profile")


def test_the_report_for_machines_says_what_the_table_says(rows, out):
    code, text, _ = call(rows, "--json", "--out", out)
    report = json.loads(text)
    assert code == 0
    (model,) = report["models"]
    b2 = model["joules"]["coefficients"][2]
    assert b2["low"] < b2["value"] < b2["high"]
    assert b2["unit"] == "J/token"
    assert {one["form"] for one in model["joules"]["forms"]} == set(RegressionForm)
    assert set(model["seconds"]["cross_validated"]) == {"rmse", "median_ape", "p90_ape"}
    assert report["rows"] == {"read": 200, "left_out": 0, "unusable": []}
    assert report["profile"]["phi-3-mini"]["seconds"]["form"] == "additive"
    assert report["profile_version"] == profile.load_profile(out).version


def test_a_few_bad_rows_are_counted_and_more_are_refused(rows, out):
    bad = frame()
    bad.loc[3, "joules"] = -1.0
    bad.to_csv(rows, index=False)
    code, text, _ = call(rows)
    assert code == 0
    assert "1 not used: joules is negative (first: rows.csv row 4)" in text
    bad.loc[5:9, "seconds"] = np.inf
    bad.to_csv(rows, index=False)
    code, _, error = call(rows, "--out", out)
    assert code == 2
    assert "6 of 200 rows cannot be used" in error
    assert "5: seconds is too large" in error
    assert "--max-bad 0.031" in error
    assert not out.exists()
    assert call(rows, "--out", out, "--max-bad", "0.031")[0] == 0
    assert profile.load_profile(out).get_model("phi-3-mini").provenance["rows"]["unusable"] == {
        "seconds is too large": 5,
        "joules is negative": 1,
    }


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seconds": "fast"}, "200 of 200 rows cannot be used.*seconds is not a number"),
        ({"joules": "NaN"}, "joules is not a number"),
        ({"joules": -1.0}, "joules is negative"),
        ({"seconds": np.nan}, "seconds is missing"),
        ({"tokens_in": 0}, "tokens_in is zero"),
        ({"tokens_out": 64}, "tokens_out is 64 in every row"),
        ({"model": np.nan}, "model is missing"),
    ],
)
def test_bad_columns_end_in_one_message_and_touch_nothing(rows, out, change, match):
    call(rows, "--out", out)
    before = out.read_bytes()
    frame(**change).to_csv(rows, index=False)
    code, text, error = call(rows, "--out", out)
    assert (code, text) == (2, "")
    assert error.startswith("joulegate: ")
    assert len(error.strip().splitlines()) == 1
    assert re.search(match, error), error
    assert out.read_bytes() == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["profile.json", "rows.csv"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--model", "other"], "no row of model 'other'; the rows have: phi-3-mini"),
        (["--col", "seconds=took"], "no column 'took'; it has: run, cell"),
        (["--form", "cubic"], "--form cubic: is none of additive, interaction, context, load"),
        (["--report", "all"], "--report all: is none of fit, reference"),
        (["--accuracy", "70"], "--accuracy 70: want SHARE"),
        (["--accuracy", "x=0.5"], "no such model was fitted"),
        (["--merge", "missing.json"], "missing.json: No such file"),
        (["--report", "reference", "--out", "p.json"], "writes no profile"),
        (["--report", "reference", "--output-includes-prompt"], "columns as they are"),
        (["--out", "no/such/place.json"], "there is no directory no/such"),
        (["--out", "."], "is a directory"),
    ],
)
def test_options_that_cannot_be_met_say_why(rows, tmp_path, monkeypatch, arguments, match):
    monkeypatch.chdir(tmp_path)
    if "--accuracy" in arguments:
        arguments = [*arguments, "--out", "p.json"]
    code, text, error = call(rows, *arguments)
    assert (code, text) == (2, "")
    assert match in error
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("merging", [[], ["--merge", "none"], ["--merge", "shipped"]])
def test_what_is_not_a_profile_of_ours_is_not_written_over(rows, out, merging):
    out.write_text(NEWER)
    code, _, error = call(rows, "--out", out, *merging)
    assert code == 2
    assert "version 2 is not known here" in error
    assert out.read_text() == NEWER
    code, _, error = call(rows, "--out", rows, *merging)
    assert code == 2
    assert "is one of the files to read" in error
    assert len(pd.read_csv(rows)) == 200


def test_a_fit_below_zero_is_shown_but_not_written(rows, out):
    bad = frame().assign(seconds=lambda f: 5 + 0.02 * f["tokens_out"] - 0.005 * f["tokens_in"])
    bad[bad["seconds"] > 0].to_csv(rows, index=False)
    code, text, _ = call(rows)
    assert code == 0
    assert "no profile can be written of this fit" in text
    code, _, error = call(rows, "--out", out)
    assert code == 2
    assert "below zero inside the fitted range" in error
    assert not out.exists()


@pytest.mark.parametrize("name", ["[/bold]", "a[red]b", "m\\"])
def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path, out, name):
    path = tmp_path / "rows.csv"
    frame(model=name).to_csv(path, index=False)
    code, text, errors = call(path, "--out", out)
    assert (code, errors) == (0, "")
    assert f"{name}: 200 of 200 rows" in text
    assert profile.load_profile(out).get_model(name) is not None
    code, text, _ = call(path, "--report", "reference")
    assert code == 0
    assert name in text
