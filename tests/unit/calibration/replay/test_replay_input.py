"""`joulegate replay` on lines and options that it cannot use."""

import msgspec
import numpy as np
import pytest

from calibration.replay.requests import read_requests
from gateway import profile
from gateway.telemetry.request_stages import RequestFeedback
from gateway.tokens import TokenCounter
from tests.unit.calibration.replay.decisions import (
    CONTEXT,
    call,
    line,
    plan,
    random_log,
    report,
    write,
)

NEWER = '{"version": 2, "models": {"a": {"new": true}}}'


@pytest.fixture
def log(tmp_path, shipped):
    return random_log(tmp_path / "decisions.jsonl", shipped, np.random.default_rng(5))


def test_lines_are_counted_by_reason(tmp_path, shipped):
    good = line(shipped)
    bad_weights = msgspec.json.decode(msgspec.json.encode(good))
    bad_weights["decision"]["weights"] = {"accuracy": "much"}
    nan = msgspec.json.encode(good).replace(b'"seconds":2.0', b'"seconds":NaN')
    text_in = msgspec.json.decode(msgspec.json.encode(good))
    text_in["usage"]["completion_tokens"] = "many"
    lines = [
        *[msgspec.json.encode(good)] * 3,
        *(msgspec.json.encode(one) for one in (
            line(shipped, policy="none"), line(shipped, code=503, model=""),
            line(shipped, kind="embeddings"), {**good, "decision": None}, bad_weights, text_in,
            line(shipped, code=499, model=""),
        )),
        nan, b'{"id": "cut o',
    ]  # fmt: skip
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(lines))
    code, _, complaint = call(path)
    assert code == 2
    assert "4 of 12 lines cannot be used" in complaint
    found = report(path, "--max-bad", "1")
    assert found["requests"] == 3
    assert {one["reason"]: one["count"] for one in found["bad"]} == {
        "its weights are not weights": 1, "completion_tokens is not a count": 1,
        "not a JSON object": 2,
    }  # fmt: skip
    assert {one["reason"]: one["count"] for one in found["left_out"]} == {
        "named its model (policy none)": 1, "failed with status 503": 1,
        "asked for embeddings": 1, "refused before a decision": 1,
        "its client left before an answer": 1,
    }  # fmt: skip
    assert report(path, "--max-bad", "1", "--pinned")["requests"] == 4


def test_a_half_last_line_is_forgiven(tmp_path, shipped):
    path = write(tmp_path / "log.jsonl", [line(shipped)] * 3)
    path.write_bytes(path.read_bytes()[:-20])
    assert report(path)["requests"] == 2


ALL_TINY = tuple(text for name in CONTEXT for text in ("--context", f"{name}=2"))
BAD = [
    ("", (), "the file is empty"),
    ("name,text2\na,b\n", (), "neither a decision log nor prompts"),
    ("prompt\n", (), "no prompts"),
    ("prompt,max_tokens\nx,many\n", (), "max_tokens is not a whole number"),
    ("prompt\nx\n", ("--weights", "accuracy=nan"), "--weights accuracy=nan"),
    ("prompt\nx\n", ("--weights", "accuracy=0"), "not all be zero"),
    ("prompt\nx\n", ("--weights", "speed=1"), "--weights speed=1"),
    ("prompt\nx\n", ("--weights", "accuracy=lots"), "--weights accuracy=lots"),
    ("prompt\nx\n", ("--preset", "eco"), "--preset eco"),
    ("prompt\nx\n", ("--policy", "best"), "--policy best"),
    ("prompt\nx\n", ("--model", "gpt"), "no model 'gpt' in profile"),
    ("prompt\nx\n", ("--context", "phi-3-mini"), "--context phi-3-mini"),
    ("prompt\nx\n", ALL_TINY, "no request fits"),
    ("prompt\nx\n", ("--lengths", "true"), "--lengths true"),
    ("prompt\nx\n", ("--profile", "/no/such.json"), "/no/such.json"),
    ("prompt\nx\n", ("--prompt-column", "y"), "no column 'y'"),
]


@pytest.mark.parametrize(("text", "arguments", "message"), BAD)
def test_bad_input_gets_one_message(tmp_path, text, arguments, message):
    path = tmp_path / "input.csv"
    path.write_text(text)
    code, out, complaint = call(path, *arguments)
    assert code == 2
    assert message in complaint
    assert len(complaint.splitlines()) == 1
    assert out == ""


def test_a_newer_profile_or_one_that_lacks_a_model_is_refused(log, tmp_path, shipped):
    newer = tmp_path / "newer.json"
    newer.write_text(NEWER)
    assert "version 2" in call(log, "--profile", newer)[2]
    profile.save_profile({"phi-3-mini": shipped.models["phi-3-mini"]}, tmp_path / "one.json")
    code, _, complaint = call(log, "--profile", tmp_path / "one.json")
    assert code == 2
    assert "no model 'mistral-7b'" in complaint
    some = report(log, "--profile", tmp_path / "one.json", "--model", "phi-3-mini")
    assert list(plan(some, "own weights")["shares"]) == ["phi-3-mini"]


def test_a_judgement_counts_for_its_own_tenants_request_alone(tmp_path, shipped):
    def judge(score, **whose):
        told = RequestFeedback("r0", score, "user", 2.0, **whose)
        return told.to_log_line()

    lines = [
        line(shipped) | {"tenant": "one"}, line(shipped) | {"tenant": "two"}, line(shipped),
        judge(0.25, tenant="one"), judge(0.75), judge(1.0, tenant="three"),
    ]  # fmt: skip
    path = write(tmp_path / "log.jsonl", lines)
    found = read_requests(path, TokenCounter)
    assert [one.score for one in found.requests] == [0.25, None, 0.75]
