"""A serving process never loads the numeric stack."""

import subprocess
import sys

import pytest

HEAVY = {"numpy", "pandas", "statsmodels", "matplotlib", "scipy"}


@pytest.mark.parametrize(
    "module", ["gateway.app", "gateway.commands.serve", "gateway.commands.route", "gateway.cli"]
)
def test_serving_imports_nothing_heavy(module):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    # import time: self [us] | cumulative | imported package
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert module in imported
    assert {name.partition(".")[0] for name in imported} & HEAVY == set()


def test_the_command_line_loads_a_command_only_when_it_is_called():
    code = "import sys, gateway.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert "gateway.cli" in loaded
    assert not loaded & {"gateway.app", "gateway.tokens", "litestar", "aiohttp", "tiktoken"}
