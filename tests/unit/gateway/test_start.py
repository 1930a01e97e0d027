"""The start of the command: another's package that hides one of ours is named, and no traceback."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gateway import start

ROOT = Path(__file__).parents[3]
START = ROOT / "gateway" / "start.py"


def run(*arguments, path=(), cwd=None):
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, str(START), *arguments],
        capture_output=True, text=True, env=environ, cwd=cwd, timeout=60, check=False,
    )  # fmt: skip


def make_package(folder, name, text=""):
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    return package


def test_our_own_packages_are_taken():
    assert start.find_foreign_package() is None
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("joulegate ")


@pytest.mark.parametrize("name", start.PACKAGES)
def test_anothers_package_is_named(tmp_path, name):
    make_package(tmp_path, name, "raise SystemExit('was run')")
    done = run("--version", path=[tmp_path])
    assert done.returncode == 2
    assert done.stderr.startswith(f"joulegate: the package '{name}' at {tmp_path / name}")
    assert "a virtual environment of its own" in done.stderr
    assert "Traceback" not in done.stderr
    assert "was run" not in done.stdout + done.stderr


def test_its_distribution_is_named_where_there_is_one(tmp_path):
    make_package(tmp_path, "backends")
    told = tmp_path / "other_thing-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: other-thing\nVersion: 1.0\n")
    (told / "RECORD").write_text("backends/__init__.py,,\n")
    done = run(path=[tmp_path])
    assert done.returncode == 2
    assert "is of the distribution other-thing, and hides Joulegate's own" in done.stderr


def test_a_folder_without_code_hides_nothing(tmp_path):
    # A folder of that name is a namespace only where no package is found later.
    (tmp_path / "backends").mkdir()
    assert run("--version", path=[tmp_path]).returncode == 0


def test_a_package_that_is_missing_is_named():
    assert "'gateway' is not installed" in start.describe_foreign_package("gateway", "nowhere")


def test_the_command_is_installed_under_a_name_of_its_own():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"joulegate": "joulegate:main"}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"gateway/start.py": "joulegate.py"}
    assert tuple(wheel["packages"]) == start.PACKAGES


def test_types_are_shipped():
    for name in start.PACKAGES:
        assert (ROOT / name / "py.typed").is_file()
        assert start.MARK in (ROOT / name / "__init__.py").read_text().partition("\n")[0]
