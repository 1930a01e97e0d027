"""A serving process never loads the numeric stack, nor what only a command needs."""

import os
import subprocess
import sys

import pytest

HEAVY = {"numpy", "pandas", "statsmodels", "matplotlib", "scipy"}


@pytest.mark.parametrize(
    "module",
    ["gateway.app", "gateway.commands.serving", "gateway.commands.route", "gateway.cli"],
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


def test_a_serving_process_loads_nothing_of_the_command_line(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text("models: [{name: phi-3-mini, context: 99, backends: [{url: 'http://a:1'}]}]")
    code = """
import sys
from gateway.commands.serving import create_worker_app
create_worker_app()
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "JOULEGATE_CONFIG": str(path), "JOULEGATE_LOG_LEVEL": "error"},
    )
    loaded = set(done.stdout.split())
    assert {"gateway.app", "litestar", "tiktoken"} <= loaded
    assert not loaded & {"typer", "rich", "pydantic", "attrs", "gateway.cli", "gateway.console"}
    # Whoever starts a command sees to this before the command line is imported.
    assert not loaded & HEAVY


def test_the_command_line_loads_a_command_only_when_it_is_called():
    code = "import sys, gateway.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert "gateway.cli" in loaded
    assert not loaded & {"gateway.app", "gateway.tokens", "litestar", "aiohttp", "tiktoken"}
