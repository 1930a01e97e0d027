"""Profile random-weight models of the three real sizes on this machine's GPU, and fit them.

    python -m tests.gpu.profile_gpu --out DIR [--vllm-python PYTHON] [options of joulegate profile]

For a machine with an NVIDIA GPU of 24 GiB or more, with vLLM and nvidia-ml-py
(`pip install '.[calibration,meter,vllm]'`). One model after the other: its weights are made
(random, at the published size), vLLM serves them, `joulegate profile` measures it with NVML's
energy counter, and the weights are removed. DIR then holds rows.csv and profile.json, in which the
GPU is named; run it again with the same DIR to go on after an interruption.

How long: `joulegate profile --dry-run` estimates (see docs/profiling.md); `--grid small
--concurrency 4,16 --min-cell-seconds 3` needs minutes instead of an hour. Whatever this script does
not know is handed on to `joulegate profile`. On a machine that is lent for a short time, give
`--models` one name at a time and `--no-weights` (vLLM then invents the weights itself, which saves
making and reading 8 to 15 GB).

`--tiny` makes models of a few million parameters and serves them on the CPU: a rehearsal of all of
it but the energy, which takes about a minute a model. Then joules are missing, the profile is
merged into the shipped one, and nothing of it is worth keeping.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from backends.vllm.launcher import CPU_FLAGS, build_command, cpu_environment
from backends.vllm.recipes import RECIPES
from tests.e2e.processes import Server, free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 900.0


def serve(name: str, weights: Path, arguments: argparse.Namespace) -> Server:
    """Return the model's server, not started yet."""
    recipe, port = RECIPES[name], free_port()
    extra: tuple[str, ...] = ("--load-format", "dummy") if arguments.no_weights else ()
    env = {"HF_HUB_OFFLINE": "1"}
    if arguments.tiny:
        env |= cpu_environment(replace(recipe, cpu_kv_cache_gib=1), env)
        extra = (*CPU_FLAGS, *extra)
    argv = build_command(
        recipe,
        host="127.0.0.1",
        port=port,
        model_path=weights,
        extra=extra,
        python=str(arguments.vllm_python),
    )
    return Server(name, argv, port, arguments.out / f"{name}.log", env)


def run(*argv: object) -> None:
    """Run a command that must succeed, its output shown."""
    print("+", *argv, flush=True)
    subprocess.run([str(part) for part in argv], cwd=ROOT, check=True)


def profile(name: str, arguments: argparse.Namespace, more: Sequence[str]) -> None:
    """Make, serve and measure one model; its weights are removed at the end."""
    weights = arguments.out / f"weights-{name}"
    make = [arguments.vllm_python, "-m", "tests.gpu.make_random", name, weights]
    make += ["--tiny"] * arguments.tiny + ["--no-weights"] * arguments.no_weights
    run(*make)
    server = serve(name, weights, arguments)
    meter = ("--meter", "none", "--hardware", "CPU") if arguments.tiny else ("--meter", "nvml")
    with contextlib.closing(server):
        server.start()
        server.wait_until_up(seconds=START_SECONDS)
        print(f"{name} up after {server.start_seconds:.0f} s", flush=True)
        rows = arguments.out / "rows.csv"
        backend = ("--backend", f"{name}={server.url}", "--out", rows)
        run(*joulegate(), "profile", *backend, *meter, *more)
    shutil.rmtree(weights)


def joulegate() -> tuple[str, ...]:
    """Return the command line's beginning, with this Python."""
    return (sys.executable, "-m", "gateway.cli")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every model, then fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for rows and profile")
    parser.add_argument("--vllm-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--models", default=",".join(RECIPES))
    parser.add_argument("--tiny", action="store_true", help="rehearse on the CPU")
    parser.add_argument("--no-weights", action="store_true", help="vLLM invents the weights")
    arguments, more = parser.parse_known_args(argv)
    arguments.out = arguments.out.absolute()
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    for name in arguments.models.split(","):
        profile(name, arguments, more)
    rows, fitted = arguments.out / "rows.csv", arguments.out / "profile.json"
    run(*joulegate(), "fit", rows, "--out", fitted, "--merge", "shipped")
    run(*joulegate(), "check", "--profile", fitted)
    print(f"rows: {rows}\nprofile: {fitted}", flush=True)


if __name__ == "__main__":
    main()
