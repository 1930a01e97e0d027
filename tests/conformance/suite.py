"""vLLM's own tests, from its source distribution on PyPI, and what runs one of their files."""

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.conformance.outcomes import ENDED, write_line
from tests.e2e.cache import once, run

HERE = Path(__file__).parent
VERSION = "0.32.0"
FOLDER = "tests/entrypoints"
INDEX = "https://pypi.org/simple/vllm/"
FILES = (
    "openai/responses/test_simple.py",
    "openai/responses/test_basic.py",
    "openai/responses/test_structured_output.py",
    "openai/responses/test_stateful.py",
    "anthropic/test_messages.py",
    "serve/tokenize/test_tokenization.py",
    "serve/instrumentator/test_basic.py",
    "serve/instrumentator/test_orca_metrics.py",
    "scale_out/token_in_token_out/test_serving_tokens.py",
    "openai/completion/test_completion.py",
    "openai/completion/test_prompt_validation.py",
    "openai/completion/test_token_in_token_out.py",
    "openai/chat_completion/test_batched_chat_completions.py",
    "openai/chat_completion/test_chat.py",
    "openai/chat_completion/test_chat_completion.py",
    "openai/chat_completion/test_chat_echo.py",
    "openai/chat_completion/test_chat_logit_bias_validation.py",
    "openai/chat_completion/test_logprob_token_ids.py",
    "openai/test_chunked_prompt.py",
    "openai/test_return_token_ids.py",
    "openai/test_return_tokens_as_ids.py",
    # The slowest: a small model talks until its context is full.
    "openai/chat_completion/test_completion_with_function_calling.py",
)
TOOLS = ("pytest", "pytest-asyncio", "pluggy", "iniconfig", "anthropic", "docstring-parser")


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


def run_files(
    python: Path,
    tools: Path,
    tests: Path,
    model: Path,
    files: Sequence[str],
    url: str,
    log: Path,
    seconds: float,
) -> bool:
    """Run what is left of some of their files; return whether all came to their end in time."""
    command = [str(python), "-m", "pytest", "-q", "-p", "shim", "-p", "no:cacheprovider"]
    # Not the conftest.py of all their tests, which would import the engine.
    command += ["--confcutdir", FOLDER, "--continue-on-collection-errors"]
    command += ["-o", "asyncio_mode=auto"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    paths = os.pathsep.join(map(str, (HERE, tests, tools)))
    env = {**os.environ, "PYTHONPATH": paths, "JOULEGATE_CONFORMANCE_URL": url}
    env |= {"HF_HUB_OFFLINE": "1", "VLLM_TARGET_DEVICE": "cpu"}
    env |= {"JOULEGATE_CONFORMANCE_LOG": str(log), "JOULEGATE_CONFORMANCE_MODEL": str(model)}
    try:
        ran = subprocess.run(
            [*command, *(f"{FOLDER}/{file}" for file in files)], cwd=tests, env=env, check=False,
            capture_output=True, timeout=seconds, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    if ran.returncode not in _RAN:
        raise RuntimeError(f"pytest ended with {ran.returncode}: {ran.stdout[-2000:]}")
    for file in files:
        write_line(log, f"{FOLDER}/{file}", ENDED)
    return True


_RAN = (0, 1, 5)
"""pytest's exit codes: all passed, some failed, none was left to run."""
