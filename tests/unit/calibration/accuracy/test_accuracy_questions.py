"""What `joulegate accuracy` refuses before it asks anybody anything."""

import pytest

from gateway import profile
from tests.accuracy_runs import run_accuracy, write_questions


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "profile.json"
    profile.save_profile(profile.load_profile(None).models, path)
    return path


@pytest.fixture
def asked(tmp_path):
    return write_questions(tmp_path / "questions.jsonl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--backend", "gpt=http://127.0.0.1:9"), "no model 'gpt' in the profile"),
        (("--backend", "phi-3-mini"), "want MODEL=URL"),
        (("--backend", "phi-3-mini=ftp://x"), "not an http"),
        (("--samples", "2", "--temperature", "0"), "all samples are the same"),
        (("--temperature", "nan"), "--temperature nan"),
        (("--score", "best"), "--score best"),
        (("--body", "[]"), "not a JSON object"),
        (("--kind", "essay"), "--kind essay"),
        (("--api", "legacy"), "--api legacy"),
        (("--api-key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY is not set"),
    ],
)
def test_bad_options_are_exit_code_2_before_anything_is_asked(
    asked, mine, tmp_path, change, message
):
    out = tmp_path / "a.jsonl"
    backend = () if "--backend" in change else ("--backend", "phi-3-mini=http://127.0.0.1:9")
    done = run_accuracy(asked, "--profile", mine, "--results", out, *backend, *change)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,answer,kind\nWhat?,A,essay\n", "kind 'essay' is none"),
        ("prompt,answer\nWhat?,A\n", "of which kind"),
        ("prompt,answer,kind\n,A,choice\n", "holds no text"),
        ("prompt,answer,kind\nWhat?,many,number\n", "is not a number"),
        ("prompt,answer,kind\nWhat?,Paris,choice\n", "is not a letter"),
        ("prompt,answer,kind\nx,1,number\nx,1,number\n", "the same question"),
        ("prompt,kind\nx,number\n", "no column 'answer'"),
    ],
)
def test_bad_questions_are_exit_code_2(mine, tmp_path, text, message):
    asked, out = tmp_path / "q.csv", tmp_path / "a.jsonl"
    asked.write_text(text)
    backend = ("--backend", "phi-3-mini=http://127.0.0.1:9")
    done = run_accuracy(asked, "--profile", mine, "--results", out, *backend)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not out.exists()
