"""`joulegate accuracy` asking simulated backends over real sockets; killed and resumed."""

import json
import random
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from backends.simulator.cost_model import CostModel, SimulatedCost
from calibration.stats.intervals import compute_wilson_interval
from gateway import profile
from tests.accuracy_runs import run_accuracy, write_questions
from tests.integration.farm import Farm

LONG = CostModel(
    seconds=SimulatedCost("additive", (0.02, 0.001, 0.02)),
    joules=SimulatedCost("additive", (40.0, 0.3, 5.0)),
    output=(0.0, 20.0),
    context=2048,
)
GUIDED = {"structured_outputs": {"choice": ["The answer is A", "The answer is B", "Hard to say"]}}


@pytest.fixture(scope="module")
def farm():
    farm = Farm()
    yield farm
    farm.close()


@pytest.fixture(scope="module")
def phi(farm):
    return farm.add("phi-3-mini", LONG, speed=500.0)


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "profile.json"
    profile.save_profile(profile.load_profile(None).models, path)
    return path


@pytest.fixture
def asked(tmp_path):
    return write_questions(tmp_path / "questions.jsonl")


def spawn(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "accuracy", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(server, prompt, seed, temperature):
    """What the server says, asked by hand."""
    body = {
        "model": "phi-3-mini", "messages": [{"role": "user", "content": prompt}], "seed": seed,
        "temperature": temperature, "max_tokens": 1024, **GUIDED,
    }  # fmt: skip
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{server.url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return json.load(response)["choices"][0]["message"]["content"]


def marks(server, asked, samples, temperature):
    """For each question, which of its samples are right, and what they say."""
    found = []
    for line in asked.read_text().splitlines():
        question = json.loads(line)
        said = [answer(server, question["prompt"], 5 + s, temperature) for s in range(samples)]
        letters = [one[-1] if one.startswith("The answer") else None for one in said]
        found.append((question["answer"], question["task"], letters))
    return found


def test_a_run_grades_what_the_backend_says(phi, asked, mine, tmp_path):
    out = tmp_path / "answers.jsonl"
    options = (
        asked, "--backend", f"phi-3-mini={phi.url}/v1", "--results", out, "--profile", mine,
        "--body", json.dumps(GUIDED), "--seed", "5", "--json",
    )  # fmt: skip
    done = run_accuracy(*options)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    by_hand = marks(phi, asked, 1, 0.0)
    right = sum(letters[0] == gold for gold, _, letters in by_hand)
    assert 0 < right < 40
    changes = {change["task"]: change for change in report["changes"]}
    assert set(changes) == {None, "t/0", "t/1", "t/2"}
    assert changes[None]["new"] == pytest.approx(right / 40)
    assert changes[None]["interval"] == pytest.approx(compute_wilson_interval(right, 40))
    silent = sum(letters[0] is None for _, _, letters in by_hand)
    assert report["models"]["phi-3-mini"]["no_answer_found"] == silent > 0
    model = profile.load_profile(mine).get_model("phi-3-mini")
    assert model.accuracy.default == pytest.approx(right / 40)
    assert "questions (questions.jsonl), n 40" in model.provenance["accuracy"]

    before = out.read_bytes()
    again = json.loads(run_accuracy(*options).stdout)
    assert (again["answers"], again["answers_before"]) == (0, 40)
    assert out.read_bytes() == before
    # Other settings are another run, in the same file.
    other = json.loads(run_accuracy(*options, "--max-tokens", "100", "--limit", "7").stdout)
    assert (other["answers"], other["answers_before"]) == (7, 0)
    assert out.read_bytes().startswith(before)


@pytest.mark.parametrize("score", ["mean", "majority"])
def test_several_samples_are_averaged_or_vote(phi, asked, mine, tmp_path, score):
    done = run_accuracy(
        asked, "--backend", f"phi-3-mini={phi.url}", "--results", tmp_path / "a.jsonl",
        "--profile", mine, "--body", json.dumps(GUIDED), "--seed", "5", "--samples", "3",
        "--score", score, "--json", "--task-depth", "1",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    expected = 0.0
    for gold, _, letters in marks(phi, asked, 3, 0.7):
        if score == "mean":
            expected += letters.count(gold) / 3
        else:
            votes = [letter for letter in letters if letter]
            best = max(votes, key=lambda one: (votes.count(one), -votes.index(one)), default=None)
            expected += best == gold
    assert [change["task"] for change in report["changes"]] == [None, "t"]
    assert report["changes"][0]["new"] == pytest.approx(expected / 40, abs=1e-6)
    assert report["changes"][0]["n"] == 40
    assert report["answers"] == 120
    assert any(f"{score}" in note for note in report["notes"])


def test_killed_and_resumed_it_asks_nothing_twice(farm, asked, mine, tmp_path):
    slow = farm.add("phi-3-mini", LONG, speed=2.0)
    out, before = tmp_path / "answers.jsonl", mine.read_bytes()
    options = (
        asked, "--backend", f"phi-3-mini={slow.url}", "--results", out, "--profile", mine,
        "--body", json.dumps(GUIDED), "--concurrency", "2", "--json",
    )  # fmt: skip
    rng = random.Random(3)
    for _ in range(4):
        size = lines(out)
        with spawn(*options) as process:
            while process.poll() is None and lines(out) < size + 3:
                time.sleep(0.005)
            time.sleep(rng.random() * 0.05)
            process.kill()
            assert process.wait() == -signal.SIGKILL, process.stderr.read()
    grown = lines(out)
    assert 12 <= grown < 40
    assert mine.read_bytes() == before
    with out.open("ab") as file:
        file.write(b'{"run":"0123')
    with spawn(*options) as process:
        text, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints
    assert "truncated an incomplete last line" in complaints
    assert f"resuming after {grown} of 40 answers" in complaints
    report = json.loads(text)
    assert (report["answers"], report["answers_before"]) == (40 - grown, grown)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    keys = [(row["model"], row["question"], row["sample"]) for row in rows]
    assert len(keys) == len(set(keys)) == 40
    once = run_accuracy(*options[:4], tmp_path / "once.jsonl", *options[5:])
    assert json.loads(once.stdout)["changes"][0]["new"] == report["changes"][0]["new"]


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_sigterm_ends_a_run_that_can_go_on(farm, asked, mine, tmp_path):
    slow = farm.add("phi-3-mini", LONG, speed=1.0)
    out, before = tmp_path / "answers.jsonl", mine.read_bytes()
    with spawn(
        asked, "--backend", f"phi-3-mini={slow.url}", "--results", out, "--profile", mine
    ) as process:
        while process.poll() is None and lines(out) < 2:
            time.sleep(0.005)
        process.terminate()
        _, complaints = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "stopped" in complaints
    assert "to go on from there" in complaints
    assert mine.read_bytes() == before


def test_a_refused_prompt_is_left_out_and_a_flaky_backend_lived_with(farm, mine, tmp_path):
    server = farm.add("phi-3-mini", LONG, speed=500.0)
    server.faults.set_fault("status", status=503, count=2)
    asked = tmp_path / "q.csv"
    long = "word " * 3000
    asked.write_text(f"prompt,answer\nWhat?,simulated\n{long},simulated\n")
    done = run_accuracy(
        asked, "--kind", "exact", "--backend", f"phi-3-mini={server.url}", "--json",
        "--results", tmp_path / "a.jsonl", "--profile", mine,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["models"]["phi-3-mini"]["refused"] == 1
    assert report["changes"][0]["n"] == 1


def test_a_backend_that_is_gone_is_exit_code_1(asked, mine, tmp_path):
    before = mine.read_bytes()
    done = run_accuracy(
        asked, "--backend", "phi-3-mini=http://127.0.0.1:9", "--results", tmp_path / "a.jsonl",
        "--profile", mine,
    )  # fmt: skip
    assert done.exit_code == 1
    assert "127.0.0.1:9" in done.stderr
    assert mine.read_bytes() == before


def test_a_backend_that_dies_midway_is_exit_code_1_and_says_so(farm, asked, mine, tmp_path):
    server = farm.add("phi-3-mini", LONG, speed=5.0)
    out = tmp_path / "a.jsonl"
    with spawn(
        asked, "--backend", f"phi-3-mini={server.url}", "--results", out, "--profile", mine
    ) as process:
        while process.poll() is None and lines(out) < 2:
            time.sleep(0.005)
        farm.do(close(server))
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"the backend at {server.url} is gone" in complaints
    assert 2 <= lines(out) < 40


async def close(server):
    await server.close()


def test_a_wrong_key_is_exit_code_1_and_says_so(farm, asked, mine, tmp_path, monkeypatch):
    server = farm.add("phi-3-mini", LONG, speed=500.0, api_key="sesame")
    options = (
        asked, "--backend", f"phi-3-mini={server.url}", "--results", tmp_path / "a.jsonl",
        "--profile", mine, "--api-key-env", "A_KEY",
    )  # fmt: skip
    monkeypatch.setenv("A_KEY", "wrong")
    done = run_accuracy(*options)
    assert done.exit_code == 1
    assert "401" in done.stderr
    monkeypatch.setenv("A_KEY", "sesame")
    assert run_accuracy(*options).exit_code == 0


def test_another_file_is_not_taken_for_results(phi, asked, mine, tmp_path):
    for text in ("a,b\n1,2\n", "no newline"):
        out = tmp_path / "other.csv"
        out.write_text(text)
        done = run_accuracy(
            asked, "--profile", mine, "--results", out, "--backend", f"phi-3-mini={phi.url}"
        )
        assert done.exit_code == 2
        assert "not a results file" in done.stderr
        assert out.read_text() == text
