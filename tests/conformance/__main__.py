"""`python -m tests.conformance`: vLLM's own tests, direct and through the gateway; what differs.

They come from vLLM's source distribution on PyPI and are run as they stand, with vLLM's own Python;
one real CPU server with a small model answers to every name that they ask for. Tests that need what
it has not (LoRA, pictures, other models' words) fail both ways and say nothing here. Exits 1 where
one passes direct and fails through the gateway, and is not among those that the gateway answers in
its own way.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import httpx
import yaml

from backends.vllm.launcher import CPU_FLAGS, build_command, cpu_environment
from tests.e2e import install
from tests.e2e.cache import CACHE, once, run, say
from tests.e2e.fleet import NO_BLANKS, SMOLLM2, SMOLLM2_PROFILE, running
from tests.e2e.processes import Server, free_port

HERE = Path(__file__).parent
VERSION = "0.32.0"
INDEX = "https://pypi.org/simple/vllm/"
FILES = (
    "openai/completion/test_completion.py",
    "openai/completion/test_prompt_validation.py",
    "openai/completion/test_token_in_token_out.py",
    "openai/chat_completion/test_batched_chat_completions.py",
    "openai/chat_completion/test_chat.py",
    "openai/chat_completion/test_chat_completion.py",
    "openai/chat_completion/test_chat_echo.py",
    "openai/chat_completion/test_chat_logit_bias_validation.py",
    "openai/chat_completion/test_completion_with_function_calling.py",
    "openai/chat_completion/test_logprob_token_ids.py",
    "openai/test_chunked_prompt.py",
    "openai/test_return_token_ids.py",
    "openai/test_return_tokens_as_ids.py",
    "openai/responses/test_simple.py",
    "openai/responses/test_basic.py",
    "openai/responses/test_structured_output.py",
    "anthropic/test_messages.py",
    "serve/tokenize/test_tokenization.py",
    "serve/instrumentator/test_basic.py",
    "serve/instrumentator/test_orca_metrics.py",
    "scale_out/token_in_token_out/test_serving_tokens.py",
)
NAMES = (
    "facebook/opt-125m",
    "HuggingFaceH4/zephyr-7b-beta",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "openai-community/gpt2",
    "Qwen/Qwen2-1.5B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-8B",
)
FILE_SECONDS = 900
TOOLS = ("pytest", "pytest-asyncio", "pluggy", "iniconfig", "anthropic", "docstring-parser")
OWN_WAY: dict[str, str] = {
    "test_basic.py::test_show_version": "GET /version is the gateway's own version",
}
"""Tests that the gateway answers in its own way, as the docs say, each with how."""


def fetch_tests() -> Path:
    """Return the folder that holds vLLM's `tests`."""
    return once(f"vllm-tests-{VERSION}", VERSION, _unpack)


def _unpack(target: Path) -> None:
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    files = httpx.get(INDEX, headers=accept, timeout=60).raise_for_status().json()["files"]
    (url,) = [one["url"] for one in files if one["filename"] == f"vllm-{VERSION}.tar.gz"]
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as archive:
        archive.write(httpx.get(url, timeout=300).raise_for_status().content)
        archive.flush()
        with tarfile.open(archive.name) as packed:
            inside = f"vllm-{VERSION}/tests/"
            wanted = [one for one in packed if one.name.startswith(inside) and one.isfile()]
            packed.extractall(target, wanted, filter="data")
    # Theirs would import all of vLLM and its hardware.
    (target / f"vllm-{VERSION}" / "tests" / "utils.py").unlink()


def fetch_tools(python: Path) -> Path:
    """Return a folder of what their tests need beside vLLM."""

    def make(target: Path) -> None:
        run(
            "test tools",
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            target,
            *TOOLS,
        )

    return once("vllm-test-tools", f"1 {TOOLS}", make)


def make_server(python: Path, models: Path, logs: Path) -> Server:
    """Return the real server."""
    port = free_port()
    served = ("--served-model-name", *NAMES, "--enable-auto-tool-choice")
    more = ("--tool-call-parser", "hermes", "--enable-tokenizer-info-endpoint")
    argv = build_command(
        SMOLLM2, host="127.0.0.1", port=port, model_path=models / SMOLLM2.name,
        extra=(*CPU_FLAGS, *NO_BLANKS, *more, *served), python=str(python),
    )  # fmt: skip
    env = cpu_environment(SMOLLM2, {}) | {
        "TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"),
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_RESPONSES_API_STORE": "1",
    }
    return Server("vllm", argv, port, logs / "vllm.log", env)


def make_gateway(backend: str, folder: Path) -> Server:
    """Return a gateway that knows the server by every name."""
    profile = {"version": 1, "models": {SMOLLM2.name: SMOLLM2_PROFILE}}
    (folder / "profile.json").write_text(json.dumps(profile))
    models = [
        {
            "name": name,
            "profile": SMOLLM2.name,
            "context": SMOLLM2.context_tokens,
            "capabilities": ["chat", "completions", "tools", "logprobs"],
            "backends": [{"url": backend}],
        }
        for name in NAMES
    ]
    config = {"models": models, "profile": "profile.json"}
    (folder / "gateway.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    argv = [sys.executable, "-m", "gateway.cli", "serve", "--port", str(port)]
    argv += ["--config", str(folder / "gateway.yaml")]
    return Server("gateway", argv, port, folder / "gateway.log", {})


def run_file(python: Path, tools: Path, tests: Path, file: str, url: str) -> dict[str, str]:
    """Run one of their files; return each test's outcome."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.jsonl"
        command = [str(python), "-m", "pytest", "-q", "-p", "shim", "-p", "no:cacheprovider"]
        command += ["--noconftest", "-o", "asyncio_mode=auto"]
        command += ["-o", "asyncio_default_fixture_loop_scope=function"]
        paths = os.pathsep.join(map(str, (HERE, tests, tools)))
        env = {**os.environ, "PYTHONPATH": paths, "JOULEGATE_CONFORMANCE_URL": url}
        env |= {"HF_HUB_OFFLINE": "1", "VLLM_TARGET_DEVICE": "cpu"}
        env |= {"JOULEGATE_CONFORMANCE_LOG": str(told)}
        try:
            subprocess.run(
                [*command, f"tests/entrypoints/{file}"], cwd=tests, env=env, check=False,
                capture_output=True, timeout=FILE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            say(f"{file}: stopped after {FILE_SECONDS} s; what had ended counts")
        lines = told.read_text("utf-8").splitlines() if told.exists() else []
    return {
        test.removeprefix("tests/entrypoints/"): f"{outcome}: {why}" if why else outcome
        for test, outcome, why in map(json.loads, lines)
    }


def main() -> int:
    """Run every file both ways and compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--only", default="", help="a part of the files' names")
    only = parser.parse_args().only
    files = [file for file in FILES if only in file]
    python, models = install.vllm_python(), install.models()
    tests, tools = fetch_tests() / f"vllm-{VERSION}", fetch_tools(python)
    lost, silent = 0, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = make_server(python, models, folder)
        gateway = make_gateway(server.url, folder)
        with running([server]), running([gateway]):
            gateway.wait_until_up("/ready", 60)
            for file in files:
                direct = run_file(python, tools, tests, file, server.url)
                through = run_file(python, tools, tests, file, gateway.url)
                lost += _compare(file, direct, through)
                if "passed" not in direct.values():
                    silent.append(file)
                    print(f"  nothing passes direct: {next(iter(direct.values()), 'none ran')}")
    say(f"{lost} pass direct and fail through the gateway")
    if silent:
        say(f"nothing was compared in {', '.join(silent)}")
    # A run that compared nothing has shown nothing.
    return int(lost > 0 or len(silent) == len(files))


def _compare(file: str, direct: dict[str, str], through: dict[str, str]) -> int:
    """Show what differs in one file; return how many tests are lost."""
    counts = [sum(one == "passed" for one in ran.values()) for ran in (direct, through)]
    print(f"{file}: {len(direct)} tests, {counts[0]} pass direct, {counts[1]} through", flush=True)
    lost = 0
    for test, outcome in direct.items():
        then = through.get(test, "not run")
        if outcome == "passed" and then != "passed" and not then.startswith("skipped"):
            own = next((why for part, why in OWN_WAY.items() if part in test), None)
            lost += own is None
            print(f"  {'own way' if own else 'LOST'}: {test}: {own or then}", flush=True)
    return lost


if __name__ == "__main__":
    sys.exit(main())
