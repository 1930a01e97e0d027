"""`joulegate profile` against simulated backends over real sockets, killed and resumed."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from calibration.cli import app
from calibration.profile.rows_file import HEADER, read_measurements
from tests.integration.farm import TRUTH, Farm

KEY = "sesame"
SMALL = ("--grid", "small", "--min-cell-seconds", "0", "--max-repeats", "5")
# However late a busy machine interrupts it, a plan of so many requests is not over.
ENDLESS = ("--blocks", "100", "--max-repeats", "1000")


@pytest.fixture(scope="module")
def farm():
    farm = Farm()
    yield farm
    farm.close()


@pytest.fixture(scope="module")
def phi(farm):
    return farm.add(speed=200.0, per_request_metrics=True, prompt_tokens_details=True)


def profile(*arguments):
    return CliRunner().invoke(app, ["profile", *map(str, arguments)])


def spawn(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "profile", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def keys(path):
    return sorted((row.model, row.cell, row.block, row.repeat) for row in read_measurements(path))


def test_rows_hold_the_truth_of_every_request(phi, tmp_path):
    path = tmp_path / "rows.csv"
    arguments = ("--backend", f"phi-3-mini={phi.url}", "--out", path, *SMALL, "--concurrency", "4")
    done = profile(*arguments, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    rows = list(read_measurements(path))
    assert summary["rows"] == len(rows) == summary["models"]["phi-3-mini"]["rows_with_joules"]
    alone = [row for row in rows if row.concurrency == 1]
    assert len({row.cell for row in alone}) == 9
    assert len({row.cell for row in rows}) == 11
    assert {row.block for row in alone} == {0, 1, 2}
    for row in alone:
        assert row.cell == f"{row.tokens_in}x{row.tokens_out}@1"
        assert row.seconds == pytest.approx(TRUTH.total_seconds(row.tokens_in, row.tokens_out))
        assert row.joules == pytest.approx(TRUTH.total_joules(row.tokens_in, row.tokens_out))
        assert 0 < row.ttft_seconds < row.seconds
        assert row.running == row.cached_tokens == 0
    busy = [row for row in rows if row.concurrency == 4]
    # At this speed a slot stands empty for simulated seconds between two of its requests.
    assert sum(row.running for row in busy) / len(busy) > 2.5
    assert sum(row.joules for row in busy) < 0.8 * sum(
        TRUTH.total_joules(row.tokens_in, row.tokens_out) for row in busy
    )
    assert {(row.method, row.hardware) for row in rows} == {("simulated", "simulated")}
    assert len({row.request_id for row in rows}) == len(rows)
    assert all(0.9 < row.tokens_in / row.tiktoken_in < 1.1 for row in rows)

    before = path.read_bytes()
    again = json.loads(profile(*arguments, "--json").stdout)
    assert (again["rows"], again["rows_before"], again["complete"]) == (0, len(rows), True)
    assert path.read_bytes() == before
    assert profile(*arguments, "--no-resume").exit_code == 2


def test_killed_at_random_twenty_times_it_ends_with_the_same_rows(farm, phi, tmp_path):
    # So slow that a run is not over before it is killed, however late a busy machine does that.
    slow = farm.add(speed=15.0)
    whole, path = tmp_path / "whole.csv", tmp_path / "rows.csv"
    common = (*SMALL, "--concurrency", "4", "--seed", "3")
    done = profile("--backend", f"phi-3-mini={phi.url}", "--out", whole, *common)
    assert done.exit_code == 0, done.output
    rng = random.Random(11)
    arguments = ("--backend", f"phi-3-mini={slow.url}", "--out", path, *common)
    kills, grown = 0, 0
    while kills < 20:
        size = path.stat().st_size if path.exists() else 0
        rows = rng.randrange(3)
        with spawn(*arguments) as process:
            # In the first milliseconds of a run, between two rows, and within a request.
            while process.poll() is None and lines(path) < grown + rows:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.05)
            process.kill()
            assert process.wait() == -signal.SIGKILL, process.stderr.read()
        kills += 1
        grown = lines(path)
        assert not path.exists() or path.stat().st_size >= size
    assert 0 < grown < len(keys(whole))
    # The system may cut a line where we cannot kill that exactly.
    with path.open("ab") as file:
        file.write(b"0123456789ab,32x16@1,0,")
    with spawn(*arguments) as process:
        _, complaints = process.communicate(timeout=300)
        assert process.returncode == 0, complaints
    assert "truncated an incomplete last row" in complaints
    found = keys(path)
    assert found == keys(whole)
    assert len(set(found)) == len(found)
    assert path.read_bytes().startswith(HEADER)


def lines(path):
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(farm, tmp_path, how):
    slow = farm.add(speed=20.0)
    path = tmp_path / "rows.csv"
    arguments = ("--backend", f"phi-3-mini={slow.url}", "--out", path, *SMALL, *ENDLESS)
    with spawn(*arguments) as process:
        while lines(path) < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        process.send_signal(how)
        _, complaints = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in complaints
    assert f"joulegate profile --backend phi-3-mini={slow.url} --out {path}" in complaints
    rows = keys(path)
    assert len(rows) >= 2
    deadline = time.monotonic() + 60
    while slow.engine.running_requests:  # what was in flight is let go
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_three_models_are_measured_one_after_the_other(farm, tmp_path):
    names = ("phi-3-mini", "mistral-7b", "falcon-7b")
    servers = {name: farm.add(name) for name in names}
    path = tmp_path / "rows.csv"
    backends = [part for name in names for part in ("--backend", f"{name}={servers[name].url}")]
    done = profile(*backends, "--out", path, *SMALL, "--concurrency", "none", "--blocks", "1")
    assert done.exit_code == 0, done.output
    order = [row.model for row in read_measurements(path)]
    assert order == sorted(order, key=names.index)
    assert set(order) == set(names)
    cells = [{row.cell for row in read_measurements(path) if row.model == name} for name in names]
    assert cells[0] == cells[1] == cells[2]


def test_prompts_of_a_file_get_natural_answers(phi, tmp_path):
    prompts = tmp_path / "alpaca.json"
    many = [{"instruction": f"Count to {k}.", "input": "", "output": ""} for k in range(30)]
    prompts.write_text(json.dumps([*many, {"instruction": "word " * 3000}]))
    path = tmp_path / "rows.csv"
    arguments = ("--backend", f"phi-3-mini={phi.url}", "--out", path, "--prompts", prompts)
    done = profile(*arguments, "--concurrency", "1,3", "--json")
    assert done.exit_code == 0, done.output
    model = json.loads(done.stdout)["models"]["phi-3-mini"]
    assert (model["rows"], model["given_up"]) == (60, 2)
    assert "maximum context length" in model["refusals"][0]
    rows = list(read_measurements(path))
    assert {row.cell for row in rows} == {"prompts@1", "prompts@3"}
    assert len({row.tokens_out for row in rows}) > 5
    assert abs(rows[0].tokens_in - rows[0].tiktoken_in) <= 2
    done = profile(*arguments, "--concurrency", "1,3", "--json")
    assert json.loads(done.stdout)["rows"] == 0


def test_a_dry_run_shows_the_plan_and_sends_nothing(farm, tmp_path):
    server = farm.add()
    done = profile("--backend", f"phi-3-mini={server.url}", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "32x64@64" in done.stdout
    assert "nothing was sent" in done.stdout
    gone = profile("--backend", "phi-3-mini=http://127.0.0.1:9", "--dry-run", "--json")
    (plan,) = json.loads(gone.stdout)["models"]
    assert plan["expected_seconds"] < plan["most_seconds"]
    assert len(plan["cells"]) == 42
    assert server.engine.microjoules == server.engine.idle_microjoules
    assert not list(tmp_path.iterdir())


def test_without_a_meter_joules_are_missing(phi, tmp_path):
    path = tmp_path / "rows.csv"
    backend = ("--backend", f"phi-3-mini={phi.url}", "--out", path)
    done = profile(*backend, *SMALL, "--concurrency", "none", "--meter", "none", "--hardware", "X")
    assert done.exit_code == 0, done.output
    assert {(row.joules, row.method, row.hardware) for row in read_measurements(path)} == {
        (None, "", "X")
    }


def test_a_server_that_wants_a_key_gets_it(farm, tmp_path, monkeypatch):
    server = farm.add(api_key=KEY)
    backend = ("--backend", f"phi-3-mini={server.url}", "--out", tmp_path / "rows.csv")
    options = (*backend, *SMALL, "--blocks", "1", "--concurrency", "none")
    refused = profile(*options)
    assert refused.exit_code == 1
    assert "401" in refused.stderr
    monkeypatch.setenv("PHI_KEY", KEY)
    done = profile(*options, "--api-key-env", "PHI_KEY")
    assert done.exit_code == 0, done.output
    assert KEY not in (tmp_path / "rows.csv").read_text() + done.output


def test_a_server_that_dies_ends_the_run_with_its_rows_kept(farm, tmp_path):
    server = farm.add(speed=100.0)
    path = tmp_path / "rows.csv"
    with spawn("--backend", f"phi-3-mini={server.url}", "--out", path, *SMALL, *ENDLESS) as process:
        while lines(path) < 3:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        farm.do(server.close())
        _, complaints = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "is gone" in complaints
    assert "to go on from there" in complaints
    assert len(keys(path)) >= 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--backend", "phi-3-mini"), "want MODEL=URL"),
        (("--backend", "phi-3-mini=nowhere"), "not an http"),
        (("--grid", "huge"), "--grid huge: not one of full, small"),
        (("--meter", "guess"), "--meter guess"),
        (("--api", "soap"), "--api soap"),
        (("--concurrency", "4,many"), "--concurrency 4,many"),
        (("--concurrency", "0"), "--concurrency 0"),
        (("--gpus", "first"), "--gpus first"),
        (("--api-key-env", "NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE is not set"),
        (("--prompts", "absent.json"), "absent.json: No such file"),
        (("--prompt-column", "text"), "goes with --prompts"),
        (("--meter", "nvml"), "NVML"),
        (("--out", "no/such/folder/rows.csv"), "No such file"),
        (("--out", "rows.csv.gz"), "gzip"),
        (("--out", "theirs.csv"), "no column 'run'"),
        (("--backend", "{same}"), "once only"),
        (("--backend", "gpt={url}", "--meter", "none", "--grid", "tiny"), "--grid tiny"),
    ],
)
def test_bad_options_get_one_message_and_change_nothing(
    phi, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.csv").write_text("a,b\n1,2\n")
    first = f"phi-3-mini={phi.url}"
    filled = [part.format(same=first, url=phi.url) for part in arguments]
    out = () if "--out" in filled else ("--out", "rows.csv")
    done = profile("--backend", first, *out, *filled)
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.csv"]
    assert (tmp_path / "theirs.csv").read_text() == "a,b\n1,2\n"


def test_a_damaged_row_is_named_and_left(phi, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + b"a,b\n")
    done = profile("--backend", f"phi-3-mini={phi.url}", "--out", path, *SMALL)
    assert done.exit_code == 2
    assert "rows.csv:2: 2 fields" in done.stderr
    assert path.read_bytes() == HEADER + b"a,b\n"


def test_help_goes_through_the_main_command(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with spawn("--help") as process:
        assert "--min-cell-seconds" in process.communicate(timeout=30)[0]
