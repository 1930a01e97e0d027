"""`python -m tests.conformance`: vLLM's own tests, direct and through the gateway; what differs.

They come from vLLM's source distribution on PyPI and are run as they stand, with vLLM's own Python;
one real CPU server with a small model answers to every name that they ask for. Tests that need what
it has not (LoRA, pictures, other models' words) fail both ways and say nothing here. What a test
came to is kept in the tests' cache, so that a run that was stopped (by --seconds, by hand) goes on
where it was. Exits 1 where a test passes direct and fails through the gateway, and is not among
those that the gateway answers in its own way; 2 where tests are left to run.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import yaml

from backends.vllm.launcher import CPU_FLAGS, build_command, cpu_environment
from tests.conformance.outcomes import forget_files, forget_tests, is_done, read_outcomes
from tests.conformance.suite import FILES, FOLDER, VERSION, fetch_tests, fetch_tools, run_files
from tests.e2e import install
from tests.e2e.cache import CACHE, say
from tests.e2e.fleet import NO_BLANKS, SMOLLM2, SMOLLM2_PROFILE, running
from tests.e2e.processes import Server, free_port

NAMES = (
    "claude-3-7-sonnet-latest",
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
OWN_WAY: dict[str, str] = {
    "test_basic.py::test_show_version": "GET /version is the gateway's own version",
    "test_chat.py::test_invocations": "POST /invocations is refused: ask what it stands for",
    "test_stream_delivers_abort_finish_chunk": "POST /inference/v1/abort_requests is refused",
    "test_abort_requests_is_served_without_tokens_only": "POST /abort_requests is refused",
}
"""Tests that the gateway answers in its own way, as the docs say, each with how."""


KEPT = CACHE / f"conformance-{VERSION}"
DIRECT, THROUGH = "direct", "through"
LOST = "lost"
_SIDES = (DIRECT, THROUGH)
_FOREVER = 1e9


def make_server(python: Path, models: Path, logs: Path) -> Server:
    """Return the real server."""
    port = free_port()
    served = ("--served-model-name", *NAMES, "--enable-auto-tool-choice")
    more = ("--tool-call-parser", "hermes", "--enable-tokenizer-info-endpoint")
    more += ("--enable-prompt-tokens-details", "--enable-scale-out")
    argv = build_command(
        SMOLLM2, host="127.0.0.1", port=port, model_path=models / SMOLLM2.name,
        extra=(*CPU_FLAGS, *NO_BLANKS, *more, *served), python=str(python),
    )  # fmt: skip
    env = cpu_environment(SMOLLM2, {}) | {
        "TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"),
        "HF_HUB_OFFLINE": "1",
        # Two wait for each other in every layer; on busy cores each wait is a turn of the others.
        "OMP_NUM_THREADS": "1",
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
    # Whom a request without a name is for, as docs/clients.md says of `/tokenizer_info`.
    config = {"models": models, "profile": "profile.json", "default_model": NAMES[0]}
    # Nobody else gives up a small model that talks until its context is full.
    config["timeouts"] = {"unary_seconds": 3600, "first_token_seconds": 3600}
    (folder / "gateway.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    argv = [sys.executable, "-m", "gateway.cli", "serve", "--port", str(port)]
    argv += ["--config", str(folder / "gateway.yaml")]
    return Server("gateway", argv, port, folder / "gateway.log", {})


def main() -> int:
    """Run what is left of every file both ways, and compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--only", default="", help="a part of the files' names")
    parser.add_argument("--seconds", type=float, default=_FOREVER, help="stop after so long")
    parser.add_argument("--again", choices=(THROUGH, LOST, "all"), help="run again")
    parser.add_argument("--report", action="store_true", help="only compare what was run")
    asked = parser.parse_args()
    # As when interrupted: the servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    files = [file for file in FILES if asked.only in file]
    if asked.again == LOST:
        # Many judge an answer that is drawn: what fails again is lost, not what failed once.
        forget_tests(_log(THROUGH), [test for file in files for test in _list_lost(file)])
    elif asked.again:
        for side in _SIDES if asked.again == "all" else (THROUGH,):
            forget_files(_log(side), files)
    if not asked.report and any(_list_left(files, side) for side in _SIDES):
        _run_files(files, time.monotonic() + asked.seconds)
    return compare_files(files)


def _list_left(files: list[str], side: str) -> list[str]:
    return [file for file in files if not is_done(_log(side), f"{FOLDER}/{file}")]


def _run_files(files: list[str], deadline: float) -> None:
    python, models = install.vllm_python(), install.models()
    tests, tools = fetch_tests() / f"vllm-{VERSION}", fetch_tools(python)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = make_server(python, models, folder)
        gateway = make_gateway(server.url, folder)
        with running([server]), running([gateway]):
            gateway.wait_until_up("/ready", 60)
            urls = {DIRECT: server.url, THROUGH: gateway.url}
            for number, side in enumerate(_SIDES):
                left = _list_left(files, side)
                if not left:
                    continue
                # What is run direct is worth little until it was run through the gateway.
                seconds = (deadline - time.monotonic()) / (len(_SIDES) - number)
                if seconds <= 0 or not run_files(
                    python,
                    tools,
                    tests,
                    models / SMOLLM2.name,
                    left,
                    urls[side],
                    _log(side),
                    seconds,
                ):
                    say(f"{side}: stopped by --seconds; run it again to go on")
                ran = sum(len(read_outcomes(_log(side), file)) for file in files)
                say(f"{side}: {ran} tests came to something, {len(left)} files were to run")


def compare_files(files: list[str]) -> int:
    """Show what differs; return the exit code."""
    lost, silent, left = 0, [], []
    for file in files:
        direct, through = (read_outcomes(_log(side), file) for side in _SIDES)
        whole = all(is_done(_log(side), f"{FOLDER}/{file}") for side in _SIDES)
        if not whole:
            left.append(file)
        if not direct:
            continue
        lost += _compare(file, direct, through, whole=whole)
        if whole and "passed" not in direct.values():
            silent.append(file)
            print(f"  nothing passes direct: {next(iter(direct.values()))}")
    say(f"{lost} pass direct and fail through the gateway")
    if silent:
        say(f"nothing was compared in {', '.join(silent)}")
    if left:
        say(f"{len(left)} of {len(files)} files were not run to the end: {', '.join(left)}")
        return 2
    # A run that compared nothing has shown nothing.
    return int(lost > 0 or len(silent) == len(files))


def _list_lost(file: str) -> list[str]:
    """Return the tests of a file that pass direct and fail through, in no way of our own."""
    direct, through = (read_outcomes(_log(side), file) for side in _SIDES)
    return [
        test
        for test, outcome in direct.items()
        if _is_lost(outcome, through.get(test, "passed"))
        and not any(part in test for part in OWN_WAY)
    ]


def _is_lost(direct: str, through: str) -> bool:
    return direct == "passed" and through != "passed" and not through.startswith("skipped")


def _compare(file: str, direct: dict[str, str], through: dict[str, str], *, whole: bool) -> int:
    """Show what differs in one file, of what ran both ways; return how many tests are lost."""
    counts = [sum(one == "passed" for one in ran.values()) for ran in (direct, through)]
    print(f"{file}: {len(direct)} tests, {counts[0]} pass direct, {counts[1]} through", flush=True)
    lost = 0
    for test, outcome in direct.items():
        then = through.get(test, "not run")
        if then == "not run" and not whole:
            continue
        if _is_lost(outcome, then):
            own = next((why for part, why in OWN_WAY.items() if part in test), None)
            lost += own is None
            name = test.removeprefix(f"{FOLDER}/")
            print(f"  {'own way' if own else 'LOST'}: {name}: {own or then}", flush=True)
    return lost


def _log(side: str) -> Path:
    KEPT.mkdir(parents=True, exist_ok=True)
    return KEPT / f"{side}.jsonl"


if __name__ == "__main__":
    sys.exit(main())
