"""`joulegate route --logged`: a decision read back from wherever it stands, and made again."""

import json

import pytest

from tests.unit.gateway.test_cli import run


@pytest.fixture
def decision():
    """One as `/v1/route` answers it, by what no profile says: a model that has learnt."""
    made = json.loads(run("route", "--prompt", "Hello there", "--json").stdout)
    for candidate, seconds, joules in zip(
        made["candidates"], (9.0, 1.0, 2.0), (90.0, 40.0, 400.0), strict=True
    ):
        candidate |= {"predicted_seconds": seconds, "reference_joules": joules}
    made["id"] = "req_1"
    return made


def repeat(path, *arguments):
    result = run("route", "--logged", str(path), "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_an_untouched_decision_is_made_again_to_the_digit(tmp_path):
    path = tmp_path / "answer.json"
    path.write_text(run("route", "--prompt", "Hello there", "--json").stdout)
    was = json.loads(path.read_text())
    now = repeat(path)
    names = ("model", "deployment", "score", "accuracy", "costs", "terms", "reference_joules")
    assert [{name: one[name] for name in names} for one in now["candidates"]] == [
        {name: one[name] for name in names} for one in was["candidates"]
    ]
    assert (now["weights"], now["policy"]) == (was["weights"], was["policy"])
    plain = run("route", "--logged", str(path)).stdout
    assert "as it was" in plain


def test_other_weights_and_policies_over_the_same_predictions(tmp_path, decision):
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(decision))
    by_joules = sorted(decision["candidates"], key=lambda one: one["reference_joules"])
    now = repeat(path, "--weight-energy", "1")
    assert [one["model"] for one in now["candidates"]] == [one["model"] for one in by_joules]
    fastest = min(decision["candidates"], key=lambda one: one["predicted_seconds"])
    for policy in ("relative", "fair-ols", "hybrid"):
        now = repeat(path, "--weight-time", "3", "--policy", policy)
        assert (now["model"], now["policy"]) == (fastest["model"], policy)
    told = run("route", "--logged", str(path), "--weight-energy", "1").stdout
    assert f"request req_1: then it was {decision['candidates'][0]['model']}" in told


def test_it_is_found_in_a_log_in_a_record_and_in_an_answer(tmp_path, decision):
    path = tmp_path / "log.jsonl"
    other = decision | {"id": "req_2", "weights": {"time": 1.0}}
    lines = [
        json.dumps({"id": "req_1", "decision": decision}),
        '{"id": "half',
        json.dumps({"feedback": {"id": "req_1", "score": 1.0}}),
        json.dumps({"id": "req_2", "decision": other}),
        json.dumps({"id": "req_3", "decision": None}),
    ]
    path.write_text("\n".join(lines))
    assert repeat(path)["id"] == "req_2"  # the last that has one
    assert repeat(path, "--request", "req_1")["weights"]["accuracy"] == 0.5
    path.write_text(json.dumps({"choices": [], "joulegate": decision}, indent=1))
    assert repeat(path)["id"] == "req_1"


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("", (), "no decision in it"),
        ("{}", ("--request", "req_9"), "no decision of request req_9 in it"),
        ("models: []", (), "no JSON that holds a decision: JSON is malformed"),
        ('{"candidates": 7}', (), "no JSON that holds a decision: "),
        ("{}", ("--max-latency-ms", "5"), "--max-latency-ms does not go with --logged"),
        ("{}", ("--config", "gateway.yaml"), "--config does not go with --logged"),
        ("{}", ("--prompt", "hi"), "one of --prompt and --logged"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, arguments, said):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    result = run("route", "--logged", str(path), *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"policy": "none"}, "'none' is no policy that ranks"),
        ({"weights": {"energy": -1.0}}, "its weights are not weights"),
        ({"feasible": False}, "no candidate kept within the bounds"),
        ({"candidates": []}, "no candidate kept within the bounds"),
    ],
)
def test_a_decision_that_cannot_be_made_again(tmp_path, decision, change, said):
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(decision | change))
    result = run("route", "--logged", str(path))
    assert result.exit_code == 2
    assert said in result.stderr
