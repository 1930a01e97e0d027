"""`joulegate …`: choices, shapes and exit codes; nothing is served and nothing is sent."""

import json
import os
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from gateway.cli import app

PROMPT = "Explain reinforcement learning"


def run(*arguments, env=None, text=None):
    return CliRunner().invoke(app, list(arguments), env=env, input=text)


def route(*arguments, code=0):
    result = run("route", "--prompt", PROMPT, *arguments)
    assert result.exit_code == code, result.output
    return result


def routed(*arguments):
    return json.loads(route("--json", *arguments).stdout)


@pytest.mark.parametrize("policy", ["relative", "fair-ols", "hybrid"])
@pytest.mark.parametrize(
    ("metric", "model"),
    [("accuracy", "mistral-7b"), ("energy", "phi-3-mini"), ("time", "phi-3-mini")],
)
def test_the_expected_choices(policy, metric, model):
    shown = routed(f"--weight-{metric}", "1", "--policy", policy)
    assert (shown["model"], shown["policy"]) == (model, policy)
    assert shown["candidates"][0]["model"] == model
    assert shown["weights"] == {
        name: float(name == metric) for name in ("accuracy", "energy", "time")
    }
    assert len(shown["candidates"]) == 3


def test_the_json_has_exactly_the_contracts_keys():
    shown = routed("--weight-accuracy", "0.7", "--weight-energy", "0.2", "--weight-time", "0.1")
    assert list(shown) == [
        "id", "model", "policy", "weights", "tokens", "score", "profile_version",
        "reference_load", "decision_us", "candidates", "excluded", "feasible",
    ]  # fmt: skip
    metrics = ["accuracy", "energy", "time"]
    assert list(shown["weights"]) == metrics
    assert list(shown["tokens"]) == ["input", "output", "output_p90", "source"]
    for candidate in shown["candidates"]:
        assert list(candidate) == [
            "model", "deployment", "score", "accuracy", "predicted_seconds", "predicted_joules",
            "reference_joules", "tokens", "costs", "terms", "backend", "running", "queued",
            "places",
        ]  # fmt: skip
        assert list(candidate["costs"]) == list(candidate["terms"]) == metrics
        assert candidate["score"] == pytest.approx(sum(candidate["terms"].values()))
        for name in metrics:
            term = shown["weights"][name] * candidate["costs"][name]
            assert candidate["terms"][name] == pytest.approx(term)
    assert shown["score"] == shown["candidates"][0]["score"]
    assert shown["feasible"] is True


def test_exclusions_are_shown_with_their_reason():
    # A large limit alone shuts nobody out: what has to fit is what is to be expected.
    assert routed("--max-tokens", "3000")["excluded"] == []
    shown = json.loads(run("route", "--prompt", "word " * 2100, "--json").stdout)
    (out,) = shown["excluded"]
    assert list(out) == ["model", "deployment", "reason"]
    assert out["model"] == "falcon-7b"
    assert out["reason"].startswith("context: ")


def test_the_table_shows_every_term():
    result = route("--weight-accuracy", "0.7", "--weight-energy", "0.2", "--weight-time", "0.1")
    shown = routed("--weight-accuracy", "0.7", "--weight-energy", "0.2", "--weight-time", "0.1")
    lines = result.stdout.splitlines()
    for candidate in shown["candidates"]:
        (line,) = [
            line for line in lines if line.startswith(candidate["model"] + " ") and "by" not in line
        ]
        numbers = [candidate["score"], *candidate["costs"].values(), *candidate["terms"].values()]
        for number in numbers:
            assert f"{number:.4f}" in line
    assert lines[0].startswith(f"{shown['model']} by relative")
    assert "\x1b" not in result.stdout


def test_a_prompt_from_stdin():
    piped = run("route", "--prompt", "-", "--json", text="word " * 300)
    assert piped.exit_code == 0
    assert json.loads(piped.stdout)["tokens"]["input"] > 300


def test_presets_and_concrete_names(config_path):
    assert routed("--model", "auto:accuracy")["model"] == "mistral-7b"
    assert routed("--model", "falcon-7b")["policy"] == "none"
    result = CliRunner().invoke(
        app,
        ["route", "--prompt", PROMPT, "--json", "--config", config_path, "--model", "auto:eco"],
        env={"PHI3_KEY": "k"},
    )
    assert json.loads(result.stdout)["model"] == "phi-3-mini"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weight-energy", "-1"], "--weight-energy: '-1.0' is not a non-negative decimal"),
        (["--weight-energy", "nan"], "--weight-energy: 'nan' is not"),
        (["--weight-energy", "0"], "weights must not all be zero"),
        (["--policy", "fastest"], "--policy: 'fastest' is not one of relative, fair-ols, hybrid"),
        (["--infeasible", "maybe"], "--infeasible: must be best-effort or reject"),
        (["--model", "nope"], "the model 'nope' does not exist"),
        (["--profile", "/no/such.json"], "/no/such.json: No such file"),
        (["--config", "/no/such.yaml"], "/no/such.yaml: No such file"),
    ],
)
def test_what_cannot_be_is_2_with_one_clear_message(arguments, said):
    result = route(*arguments, code=2)
    assert result.stderr.startswith("joulegate: ")
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["route"],
        ["nope"],
        ["route", "--prompt"],
        ["serve"],
        ["backend"],
        ["route", "--prompt", "hi", "--max-tokens", "0"],
    ],
)
def test_wrong_usage_is_2(arguments):
    assert run(*arguments).exit_code == 2


def test_tried_and_failed_is_1():
    bound = ["--max-energy-joules", "0.5"]
    assert routed(*bound)["feasible"] is False
    result = route(*bound, "--infeasible", "reject", "--json", code=1)
    shown = json.loads(result.stdout)
    assert (shown["model"], shown["candidates"], len(shown["excluded"])) == (None, [], 3)
    assert "no model keeps within the bounds" in result.stderr


# --- backend -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["phi-3-mini", "mistral-7b", "falcon-7b"])
def test_the_command_of_a_backend_is_printed(model):
    result = run("backend", model, "--print", "--port", "8001", "--device", "gpu", "--seed-x", "3")
    assert result.exit_code == 0
    argv = shlex.split(result.stdout)
    assert argv[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert argv[argv.index("--served-model-name") + 1] == model
    assert argv[argv.index("--port") + 1] == "8001"
    assert argv[-2:] == ["--seed-x", "3"]
    assert "--enforce-eager" not in argv


def test_what_is_printed_is_what_would_run_on_a_cpu():
    result = run("backend", "phi-3-mini", "--print", "--device", "cpu")
    assert "--enforce-eager --dtype bfloat16" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [["nope", "--print"], ["phi-3-mini", "--print", "--device", "tpu"],
     ["phi-3-mini", "--simulate", "--no-such"]],
)  # fmt: skip
def test_a_backend_that_cannot_be(arguments):
    result = run("backend", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("joulegate: ")


# --- all of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [[], ["serve"], ["demo"], ["route"], ["check"], ["backend"], ["library"], ["library", "add"]],
)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_everywhere(command, option):
    result = run(*command, option)
    assert result.exit_code == 0
    assert "Usage: " in result.output


def test_the_command_as_a_process():
    command = [sys.executable, "-m", "gateway.cli", "route", "--prompt", PROMPT, "--json"]
    done = subprocess.run(
        [*command, "--weight-accuracy", "1"], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout)["model"] == "mistral-7b"
    assert done.stderr == ""
    wrong = subprocess.run(
        [*command, "--model", "nope"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("joulegate: the model 'nope'")


def test_the_version():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"joulegate {version('joulegate')}\n")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == result.stdout


def complete(words, shell="bash"):
    """What a shell is told to offer for the last of these words."""
    environ = {
        "_JOULEGATE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from gateway.cli import main; main()"],
        capture_output=True, text=True, check=False, env=os.environ | environ,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.slow
def test_a_shell_is_told_commands_and_options_those_of_calibration_too():
    assert complete("joulegate se") == ["serve"]
    assert set(complete("joulegate re")) == {"report", "recalibrate", "replay"}
    assert complete("joulegate serve --wor") == ["--workers"]
    assert "--scale" in complete("joulegate fit --")
    assert complete("joulegate library l") == ["list"]


def test_the_demo_says_how_its_extra_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    result = run("demo", "--once")
    assert result.exit_code == 1
    assert "[demo]'" in result.output
