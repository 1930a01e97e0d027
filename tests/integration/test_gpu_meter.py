"""The check of the meter on a GPU, rehearsed with a library that plays NVML."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WATTS = 300


TRIES = 5
"""A machine that holds the sampler up for a second makes what it measures coarse, rightly."""


def check_meter(environ):
    """Run the check once; what it found."""
    command = [sys.executable, "-m", "tests.gpu.check_meter", "--busy-seconds", "1.5"]
    done = subprocess.run(
        [*command, "--load", "none"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_it_finds_is_what_the_script_plays(script):
    script.gpu("GPU-a", tick_us=20_000)
    script.power(0, (0, WATTS))
    for _ in range(TRIES):
        found = check_meter(script.env)
        if all(one["method"] != "coarse" for one in found["observed"].values()):
            break
    assert found["gpu"]["name"] == "NVIDIA_Stub"
    observed = found["observed"]
    assert [observed[request]["method"] for request in "123"] == [
        "exclusive",
        "apportioned",
        "apportioned",
    ]
    assert observed["2"]["joules"] == pytest.approx(2 * observed["3"]["joules"], rel=0.01)
    assert observed["1"]["joules"] <= found["counter_joules"]["alone"] + WATTS * 0.1
    assert found["unbalanced_joules"] == pytest.approx(0, abs=1e-5)
    assert found["books_joules"]["other"] == 0
