"""`joulegate library list | show | add`: what is printed and written, and what is refused."""

import json

import pytest
from typer.testing import CliRunner

from gateway import profile
from gateway.cli import app
from gateway.scheduling.text_features import BUCKETS, SHAPES


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["library", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_the_list_has_every_entry_and_the_overall_errors():
    shown = run("list").stdout
    assert "Qwen3-14B@H100 " in shown
    assert "DeepSeek-R1-0528@8xB200:gpqa" in shown
    assert "leave-one-out error of joules per token: median 6.7%, mean 11.2%" in shown
    assert "ML.ENERGY leaderboard, 2026-02" in shown


def test_the_list_is_narrowed_by_a_text():
    entries = json.loads(run("list", "4xh100", "--json").stdout)["entries"]
    assert entries
    assert all("@4xH100" in name for name in entries)
    assert "no entry has 'tpu'" in run("list", "tpu", code=2).stderr


def test_an_entry_is_shown_with_the_origin_of_each_number():
    shown = run("show", "qwen3-14b@h100").stdout
    assert "b2 0.01168 s per token out: fitted by relative loss to 6 measured batches" in shown
    assert "b1 0.05238 J per token in: ASSUMED until profiled: 2 x 1.48e+10 parameters" in shown
    assert "idle: 75 W; ASSUMED" in shown
    model = json.loads(run("show", "qwen3-14b@h100", "--json").stdout)["Qwen3-14B@H100"]
    assert model["joules"]["form"] == "load"
    assert model["idle_watts"] == 75.0
    assert "close: " in run("show", "qwen3-14@h100", code=2).stderr


def test_entries_are_added_to_a_profile_that_may_be_new(tmp_path):
    path = tmp_path / "profile.json"
    told = run("add", "Qwen3-14B@H100", "--as", "qwen", "--profile", path, "--accuracy", 0.8)
    assert "accuracy: given with --accuracy" in told.stdout
    run("add", "Llama-3.1-8B-Instruct@H100", "--as", "llama", "--profile", path)
    models = profile.load_profile(path).models
    assert set(models) == {"qwen", "llama"}
    assert models["qwen"].accuracy.default == 0.8
    assert models["llama"].accuracy.default == 0.5
    assert models["llama"].idle_watts == 75.0


def test_a_model_that_is_there_is_replaced_only_if_that_is_asked(tmp_path):
    path = tmp_path / "profile.json"
    run("add", "Qwen3-14B@H100", "--as", "qwen", "--profile", path, "--accuracy", 0.8)
    before = path.read_bytes()
    refused = run("add", "Qwen3-14B@B200", "--as", "qwen", "--profile", path, code=2)
    assert "--replace" in refused.stderr
    assert path.read_bytes() == before
    run("add", "Qwen3-14B@B200", "--as", "qwen", "--profile", path, "--replace")
    model = profile.load_profile(path).get_model("qwen")
    assert model.provenance["hardware"] == "1 x NVIDIA B200"
    assert model.accuracy.default == 0.8


def test_models_of_words_stay_where_an_entry_is_added(tmp_path):
    path = tmp_path / "profile.json"
    words = profile.WordsRegression(1.0, 0.5, [0.0] * BUCKETS, [(0.0, 0.0, 1.0)] * len(SHAPES))
    shipped = profile.load_profile(None)
    profile.save_profile(shipped.models, path, {"phi-3-mini": words})
    run("add", "Qwen3-14B@H100", "--as", "qwen", "--profile", path)
    after = profile.load_profile(path)
    assert after.lengths == {"phi-3-mini": words}
    assert "qwen" in after.models


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Qwen3-14B@A100", "--as", "q"], "no 'Qwen3-14B@A100' in the library"),
        (["Qwen3-14B@H100", "--as", " "], "--as: a model needs a name"),
    ],
)
def test_what_cannot_be_added_leaves_no_file(tmp_path, arguments, said):
    path = tmp_path / "profile.json"
    assert said in run("add", *arguments, "--profile", path, code=2).stderr
    assert not path.exists()


def test_a_file_that_is_no_profile_is_left_as_it_is(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text("{}")
    assert (
        "no version" in run("add", "Qwen3-14B@H100", "--as", "q", "--profile", path, code=2).stderr
    )
    assert path.read_text() == "{}"


def test_a_folder_that_is_not_there_is_said(tmp_path):
    path = tmp_path / "none" / "profile.json"
    assert (
        "No such file"
        in run("add", "Qwen3-14B@H100", "--as", "q", "--profile", path, code=1).stderr
    )
