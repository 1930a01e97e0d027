"""`joulegate profile`: which plan it makes of its options, and what it says where it cannot."""

import json

import pytest
from typer.testing import CliRunner

from calibration.cli import app
from calibration.profile.rows_file import read_measurements
from tests.integration.farm import Farm

SMALL = ("--grid", "small", "--min-cell-seconds", "0", "--max-repeats", "5")


@pytest.fixture(scope="module")
def phi():
    farm = Farm()
    yield farm.add(speed=200.0, per_request_metrics=True, prompt_tokens_details=True)
    farm.close()


def profile(*arguments):
    return CliRunner().invoke(app, ["profile", *map(str, arguments)])


def test_beside_a_grid_each_prompt_is_sent_once(phi, tmp_path):
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt\nhello there\n")
    arguments = ("--backend", f"phi-3-mini={phi.url}", "--prompts", prompts, "--grid", "small")
    levels = []
    for more in ((), ("--concurrency", "2")):
        done = profile(*arguments, *more, "--dry-run", "--json")
        (plan,) = json.loads(done.stdout)["models"]
        levels.append({name for name in plan["cells"] if name.startswith("prompts")})
        assert any(name.endswith("@2" if more else "@64") for name in plan["cells"])
    assert levels == [{"prompts@1"}, {"prompts@2"}]


def test_a_plan_shows_names_as_they_are(phi):
    done = profile("--backend", f"[/x]={phi.url}", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "[/x] (tokens in x out" in done.stdout


def test_a_row_that_is_there_twice_is_named(phi, tmp_path):
    path = tmp_path / "rows.csv"
    arguments = ("--backend", f"phi-3-mini={phi.url}", "--out", path, *SMALL, "--blocks", "1")
    assert profile(*arguments, "--concurrency", "none").exit_code == 0
    whole = path.read_text().splitlines()
    path.write_text("\n".join([*whole, whole[-1]]) + "\n")
    again = profile(*arguments, "--concurrency", "none")
    assert again.exit_code == 2
    row = list(read_measurements(path))[-1]
    assert f"rows.csv:{len(whole) + 1}: cell {row.cell}: block 0" in again.stderr


def test_a_backend_that_is_not_there_is_told_with_what_to_check(tmp_path):
    gone = profile("--backend", "phi=http://127.0.0.1:9", "--out", tmp_path / "rows.csv")
    assert gone.exit_code == 1
    assert "curl http://127.0.0.1:9/v1/models" in gone.stderr


def test_a_cell_without_an_end_is_refused(phi):
    endless = profile("--backend", f"phi={phi.url}", "--min-cell-seconds", "inf", "--dry-run")
    assert endless.exit_code == 2
    assert "finite" in endless.stderr


def test_other_settings_for_prompts_are_another_run(phi, tmp_path):
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt\nhello there\nhow are you\n")
    path = tmp_path / "rows.csv"
    arguments = ("--backend", f"phi-3-mini={phi.url}", "--prompts", prompts, "--out", path)
    rows = [
        json.loads(profile(*arguments, *more, "--json").stdout)["rows"]
        for more in ((), (), ("--max-tokens", "3"), ("--api", "completions"))
    ]
    assert rows == [2, 0, 2, 2]
