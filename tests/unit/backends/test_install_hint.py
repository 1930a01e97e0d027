"""Hints of how to install an extra can be typed as they stand, from wherever this was installed."""

import json
from pathlib import Path

import pytest

from backends import install_hint
from backends.install_hint import suggest_install

ROOT = Path(__file__).parents[3]


class Distribution:
    def __init__(self, told):
        self.told = told

    def read_text(self, _):
        return self.told


def test_in_a_clone_it_is_the_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert suggest_install("demo").endswith(" install '.[demo]'")
    monkeypatch.chdir(tmp_path)
    assert suggest_install("demo").endswith(f" install '{ROOT}[demo]'")


@pytest.mark.parametrize("kind", ["folder", "wheel", "gone", "index", "none", "broken"])
def test_installed_it_is_what_it_was_installed_from(monkeypatch, tmp_path, kind):
    source = tmp_path / ("a b.whl" if kind == "wheel" else "clone")
    if kind == "wheel":
        source.write_bytes(b"")
    elif kind == "folder":
        source.mkdir()
    told = {
        "index": None,
        "none": "{}",
        "broken": "{",
    }.get(kind, json.dumps({"url": source.as_uri()}))
    monkeypatch.setattr(install_hint, "_ROOT", tmp_path)
    monkeypatch.setattr(install_hint, "distribution", lambda _: Distribution(told))
    wanted = str(source) if kind in {"folder", "wheel"} else "joulegate"
    assert suggest_install("meter").endswith(f" install '{wanted}[meter]'")


def test_the_pip_is_this_pythons(monkeypatch, tmp_path):
    monkeypatch.setattr(install_hint.shutil, "which", lambda _: str(tmp_path / "pip"))
    assert suggest_install("demo").startswith(f"{install_hint.sys.executable} -m pip install ")
    monkeypatch.setattr(install_hint.sys, "executable", str(tmp_path / "python3"))
    assert suggest_install("demo").startswith("pip install ")
