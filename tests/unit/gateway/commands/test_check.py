"""`joulegate check`: good and bad files, notes, and the example that it prints."""

import json
import re
from pathlib import Path

import pytest

from gateway.config import parse_config
from tests.unit.gateway.test_cli import run


def test_a_good_config(config_path):
    result = run("check", "--config", config_path, "--json", env={"PHI3_KEY": "s3cret"})
    assert result.exit_code == 0
    assert json.loads(result.stdout)["models"] == {
        "phi-3-mini": ["http://phi3-0:8000"],
        "mistral-7b": ["http://mistral-0:8000"],
    }
    plain = run("check", "--config", config_path, env={"PHI3_KEY": "s3cret"})
    assert "good" in plain.stdout
    assert "s3cret" not in plain.stdout + result.stdout


def test_a_bad_config_says_where(tmp_path, config_path):
    result = run("check", "--config", config_path, env={"PHI3_KEY": None})
    assert result.exit_code == 2
    assert "models[0].backends[0].api_key: the environment variable PHI3_KEY" in result.stderr
    bad = tmp_path / "bad.yaml"
    bad.write_text(Path(config_path).read_text().replace("name: phi-3-mini", "name: phi-4"))
    result = run("check", "--config", str(bad), env={"PHI3_KEY": "k"})
    assert result.exit_code == 2
    assert "models[0].profile: no model 'phi-4' in the profile" in result.stderr


def test_a_profile_by_itself(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"version": 9, "models": {}}')
    result = run("check", "--profile", str(path))
    assert result.exit_code == 2
    assert "version 9 is not known here" in result.stderr
    assert run("check").exit_code == 2


def test_a_meters_config_is_checked_too(tmp_path):
    path = tmp_path / "meter.yaml"
    path.write_text("ledgers: [{name: gpu0, backends: [{url: 'http://127.0.0.1:8000/v1'}]}]")
    result = run("check", "--meter", str(path), "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ledgers"] == {"gpu0": ["http://127.0.0.1:8000"]}
    path.write_text("ledger: []")
    result = run("check", "--meter", str(path))
    assert result.exit_code == 2
    assert "did you mean 'ledgers'?" in result.stderr
    assert json.loads(run("check", "--meter-schema").stdout)["$defs"]["LedgerConfig"]


METERED = """
models:
  - name: phi-3-mini
    context: 4096
    backends: [{{url: 'http://gpu:8000', meter: 'http://gpu:9464'}}]
  - name: mistral-7b
    context: 8192
    backends: [{{url: 'http://gpu:8001', meter: '{other}'}}]
"""


@pytest.mark.parametrize("other", ["http://gpu:9464", "http://gpu:9464/second"])
def test_check_says_what_metering_needs_of_vllm(tmp_path, other):
    path = tmp_path / "gateway.yaml"
    path.write_text(METERED.format(other=other))
    notes = json.loads(run("check", "--config", str(path), "--json").stdout)["notes"]
    assert "--enable-per-request-metrics" in notes[0]
    # One ledger for two models whose published profiles know nothing of company.
    shared = "coarse" in notes[-1] and "mistral-7b, phi-3-mini" in notes[-1]
    assert shared is (other == "http://gpu:9464")
    assert "note: metered backends" in run("check", "--config", str(path)).stdout


def test_the_example_is_a_config_that_can_be_used(tmp_path):
    shown = run("check", "--example")
    assert shown.exit_code == 0
    path = tmp_path / "gateway.yaml"
    path.write_text(shown.stdout)
    checked = run("check", "--config", str(path))
    assert checked.exit_code == 0, checked.output
    # So is it with every line that is commented out.
    lines = [
        re.sub(r"^( *)# (?=[a-z_]+:|  )", r"\1", line) for line in shown.stdout.splitlines()[3:]
    ]
    config = parse_config("\n".join(lines), "example", {"VLLM_KEY": "k", "METER_SECRET": "m"})
    assert config.models[0].backends[0].api_key == "k"
    assert set(config.presets) == {"eco"}
