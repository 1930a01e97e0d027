"""`joulegate accuracy` from files: what it sets, what it leaves alone, what it refuses."""

import json

import msgspec
import pandas as pd
import pytest
from typer.testing import CliRunner

from calibration.cli import app
from calibration.stats.intervals import compute_wilson_interval
from gateway import profile

NEWER = '{"version": 2, "models": {"a": {"new": true}}}'


def call(*arguments):
    """Run it; returns exit code, stdout, stderr."""
    result = CliRunner().invoke(app, ["accuracy", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def mine(tmp_path, shipped):
    path = tmp_path / "profile.json"
    profile.save_profile(shipped.models, path)
    return path


@pytest.fixture
def write(tmp_path):
    def write(text, name="input.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_scores_are_set_and_nothing_else_is_touched(mine, write, shipped):
    scores = write("model,accuracy,task\nphi-3-mini,0.7,\nphi-3-mini,0.5,math\n")
    code, text, _ = call(scores, "--profile", mine)
    assert code == 0
    after = profile.load_profile(mine)
    phi, before = after.get_model("phi-3-mini"), shipped.model("phi-3-mini")
    assert phi.accuracy == profile.AccuracyProfile(0.7, {"math": 0.5})
    assert after.models["mistral-7b"] == shipped.models["mistral-7b"]
    kept = msgspec.structs.replace(phi, accuracy=before.accuracy, provenance=before.provenance)
    assert kept == before
    assert phi.provenance["hardware"] == before.provenance["hardware"]
    assert "scores (input.csv)" in phi.provenance["accuracy"]
    measured = phi.provenance["accuracy_measured"]
    assert measured["overall"]["accuracy"] == 0.7
    assert len(measured["tasks"]["math"]["files"][0]["sha256"]) == 64
    assert "0.6850" in text  # old
    assert "0.7000" in text  # new
    assert after.version in text


def test_json_scores_to_another_file(mine, write, tmp_path):
    scores = write('[{"model": "falcon-7b", "accuracy": 0.25}]', "scores.json")
    out, before = tmp_path / "out.json", mine.read_bytes()
    code, text, _ = call(scores, "--profile", mine, "--out", out, "--json")
    assert code == 0
    assert mine.read_bytes() == before
    report = json.loads(text)
    assert report["changes"][0] | {"how": None} == {
        "model": "falcon-7b", "task": None, "old": 0.705, "new": 0.25, "n": None,
        "interval": None, "how": None,
    }  # fmt: skip
    assert profile.load_profile(out).version == report["profile_version"]


def test_long_labels_give_wilson_intervals_and_keep_older_tasks(mine, write):
    call(write("model,accuracy,task\nphi-3-mini,0.5,old\n"), "--profile", mine)
    rows = [f"q{at},{'a' if at < 4 else 'b'},phi-3-mini,{at % 2}" for at in range(10)]
    labels = write("prompt,task,model,correct\n" + "\n".join(rows))
    code, text, _ = call(labels, "--profile", mine, "--json")
    assert code == 0
    changes = {change["task"]: change for change in json.loads(text)["changes"]}
    assert changes[None]["n"] == 10
    assert changes[None]["interval"] == pytest.approx(compute_wilson_interval(5, 10))
    assert changes["a"]["interval"] == pytest.approx(compute_wilson_interval(2, 4))
    model = profile.load_profile(mine).get_model("phi-3-mini")
    assert model.accuracy.tasks == {"old": 0.5, "a": 0.5, "b": 0.5}
    assert set(model.provenance["accuracy_measured"]["tasks"]) == {"old", "a", "b"}


def test_overall_is_pooled_or_the_mean_of_tasks_or_kept(mine, write):
    rows = ["a,1", "a,1", "a,1", "b,0"]
    labels = write("task,model,correct\n" + "\n".join(r.replace(",", ",phi-3-mini,") for r in rows))
    for how, expected in (("pooled", 0.75), ("mean", 0.5), ("keep", 0.685)):
        code, _, _ = call(
            labels, "--profile", "shipped", "--out", f"{mine}.{how}", "--overall", how
        )
        assert code == 0
        assert profile.load_profile(mine.with_name(f"{mine.name}.{how}")).get_model(
            "phi-3-mini"
        ).accuracy.default == pytest.approx(expected)


def test_blank_and_repeated_labels_are_told_of(mine, write):
    labels = write("prompt,a,b\nx,1,\nx,0,1\ny,1,true\n")
    code, text, _ = call(
        labels, "--label-columns", "phi-3-mini=a,falcon-7b=b", "--profile", mine, "--json"
    )
    report = json.loads(text)
    assert code == 0
    assert {c["model"]: (c["new"], c["n"]) for c in report["changes"]} == {
        "phi-3-mini": (0.666667, 3), "falcon-7b": (1.0, 2),
    }  # fmt: skip
    assert any("1 labels are blank" in note for note in report["notes"])
    assert any("1 rows repeat a prompt" in note for note in report["notes"])


def test_without_a_place_nothing_is_written(mine, write, tmp_path):
    scores = write("model,accuracy\nphi-3-mini,0.7\n")
    before = sorted(tmp_path.iterdir()), mine.read_bytes()
    assert "nothing written" in call(scores)[1]
    assert "nothing written" in call(scores, "--profile", mine, "--dry-run")[1]
    assert (sorted(tmp_path.iterdir()), mine.read_bytes()) == before


LM_EVAL = {
    "results": {
        "mmlu": {"acc,none": 0.5, "acc_stderr,none": 0.01},
        "mmlu_law": {"alias": " - law", "acc,none": 0.4, "acc_stderr,none": 0.02},
        "arc": {"acc,none": 0.6, "acc_norm,none": 0.7, "acc_norm_stderr,none": 0.03},
        "gsm8k": {"exact_match,strict-match": 0.3, "exact_match_stderr,strict-match": "N/A",
                  "exact_match,flexible-extract": 0.35},
    },
    "group_subtasks": {"mmlu": ["mmlu_law"], "arc": []},
    "n-samples": {"mmlu_law": {"original": 100, "effective": 100},
                  "arc": {"original": 300, "effective": 300}, "gsm8k": {"effective": 100}},
}  # fmt: skip


def test_lm_evals_results_are_taken(mine, write):
    path = write(json.dumps(LM_EVAL), "results.json")
    code, text, _ = call(path, "--model", "phi-3-mini", "--profile", mine, "--json")
    report = json.loads(text)
    assert code == 0
    assert report["source"] == "lm-eval"
    changes = {change["task"]: change for change in report["changes"]}
    assert {task: change["new"] for task, change in changes.items()} == {
        None: 0.56, "mmlu_law": 0.4, "arc": 0.7, "gsm8k": 0.3,
    }  # fmt: skip
    assert changes["arc"]["interval"] == pytest.approx([0.6412, 0.7588], abs=1e-4)
    assert changes["gsm8k"]["interval"] == pytest.approx(compute_wilson_interval(30, 100))


def test_lm_evals_tasks_can_be_picked_and_named(mine, write):
    path = write(json.dumps(LM_EVAL), "results.json")
    arguments = (path, "--from", "lm-eval", "--model", "phi-3-mini", "--profile", mine)
    code, _, _ = call(*arguments, "--task", "law=mmlu_law", "--task", "arc", "--metric", "acc")
    assert code == 0
    assert profile.load_profile(mine).get_model("phi-3-mini").accuracy.tasks == {
        "law": 0.4,
        "arc": 0.6,
    }
    assert call(*arguments, "--task", "nope")[0] == 2
    assert call(*arguments, "--metric", "f1")[0] == 2


BAD = [
    ("", (), "the file is empty"),
    ("model,accuracy\n", (), "no rows"),
    ("name,value\na,1\n", (), "name, value"),
    ("model,accuracy\nphi-3-mini,good\n", (), "'good' is not a share"),
    ("model,accuracy\nphi-3-mini,nan\n", (), "'nan' is not a share"),
    ("model,accuracy\nphi-3-mini,-0.1\n", (), "is not a share"),
    ("model,accuracy\nphi-3-mini,68.5\n", (), "68.5 per cent is 0.685"),
    ("model,accuracy\nphi-3-mini,0.5\nphi-3-mini,0.6\n", (), "already"),
    ("model,accuracy\ngpt,0.5\n", (), "no model 'gpt' in the profile"),
    ("model,accuracy\nphi-3-mini,0.5\n", ("--model", "phi-3-mini=x"), "no such model"),
    ("model,accuracy\n,0.5\n", (), "holds no name"),
    ("model,accuracy\nphi-3-mini,0.5,7\n", (), "more fields"),
    ("model,accuracy,model\nphi-3-mini,0.5,x\n", (), "two columns"),
    ("model,correct\nphi-3-mini,maybe\n", (), "'maybe' is neither"),
    ("model,correct\nphi-3-mini,NaN\n", (), "'NaN' is neither"),
    ("model,correct\nphi-3-mini,\n", (), "no row says"),
    ("prompt,phi-3-mini\nx,1\n", ("--label-columns", "falcon-7b"), "no column 'falcon-7b'"),
    ('{"results": {"a": {"acc,none": 0.5}}}', (), "One --model NAME"),
    ('{"results": {"a": {"acc,none": 1.5}}}', ("--model", "phi-3-mini"), "is not a share"),
    ('{"results": {}}', ("--from", "lm-eval", "--model", "phi-3-mini"), "has no results"),
    ('{"model": "a"\n', (), "not a JSON object"),
    ("model,accuracy\nphi-3-mini,0.5\n", ("--overall", "best"), "--overall best"),
    ("model,accuracy\nphi-3-mini,0.5\n", ("--from", "guess"), "--from guess"),
    ("prompt,answer,kind\nx,1,number\n", (), "--backend MODEL=URL"),
]


@pytest.mark.parametrize(("text", "options", "message"), BAD)
def test_bad_input_gets_one_message_and_changes_nothing(mine, write, text, options, message):
    before = mine.read_bytes()
    code, out, complaint = call(write(text), "--profile", mine, *options)
    assert code == 2
    assert message in complaint
    assert len(complaint.splitlines()) == 1
    assert out == ""
    assert mine.read_bytes() == before


def test_a_newer_profile_is_neither_read_nor_replaced(mine, write, tmp_path):
    scores = write("model,accuracy\nphi-3-mini,0.5\n")
    newer = write(NEWER, "newer.json")
    for options in (("--profile", newer), ("--profile", mine, "--out", newer), ("--out", newer)):
        code, _, complaint = call(scores, *options)
        assert code == 2
        assert "version 2" in complaint
        assert newer.read_text() == NEWER
    for bad in (tmp_path, tmp_path / "no" / "p.json", scores):
        assert call(scores, "--profile", mine, "--out", bad)[0] == 2


def test_the_published_labels_give_what_pandas_gives(mine, shared_data):
    path = shared_data / "correctness_train.csv.gz"
    frame = pd.read_csv(path)
    code, text, _ = call(
        path, "--label-columns", "mixtral-8x7b-instruct,gpt-4-1106", "--profile", mine, "--json",
        "--model", "phi-3-mini=mixtral-8x7b-instruct", "--model", "mistral-7b=gpt-4-1106",
    )  # fmt: skip
    assert code == 0
    found = {(c["model"], c["task"]): c for c in json.loads(text)["changes"]}
    assert len(found) == 2 * (1 + frame["task"].nunique())
    for key, column in (("phi-3-mini", "mixtral-8x7b-instruct"), ("mistral-7b", "gpt-4-1106")):
        whole = found[key, None]
        assert whole["n"] == len(frame) == 7713
        assert whole["new"] == pytest.approx(frame[column].mean(), abs=1e-6)
        for task, group in frame.groupby("task")[column]:
            one = found[key, task]
            assert (one["n"], one["new"]) == (len(group), pytest.approx(group.mean(), abs=1e-6))
            low, high = one["interval"]
            assert low < one["new"] < high or one["new"] in (0.0, 1.0)


def test_names_are_shown_as_they_are(mine, write, shipped):
    profile.save_profile({**shipped.models, "[/x]": shipped.models["phi-3-mini"]}, mine)
    scores = write("model,accuracy,task\n[/x],0.7,\n[/x],0.5,[bold]math\n")
    code, text, _ = call(scores, "--profile", mine)
    assert code == 0
    assert "[/x]" in text
    assert "[bold]math" in text
    assert profile.load_profile(mine).get_model("[/x]").accuracy.default == 0.7
