"""Names say what they name: of two words as a rule, and a class's found once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "word_counts.py"
sys.path.insert(0, str(SCRIPT.parent))

from word_counts import count_names, is_one_word  # noqa: E402 - a script's, not a package's


@pytest.fixture(scope="module")
def names():
    return count_names()


def test_a_public_class_name_occurs_once(names):
    assert names.find_repeated_classes() == {}


def test_most_names_are_of_two_words(names):
    assert names.one_word_functions < 0.45
    assert names.one_word_classes < 0.40


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("settle", True),
        ("_settle", True),
        ("OK", True),
        ("Options", True),
        ("apportion_joules", False),
        ("_read_all", False),
        ("HTTPServer", False),
        ("ReplayOptions", False),
        ("sha256", True),
    ],
)
def test_what_counts_as_one_word(name, one):
    assert is_one_word(name) is one


def test_what_is_counted(tmp_path):
    for package in ("gateway", "backends", "calibration"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "one.py").write_text(
            "class Twice:\n    def __init__(self): ...\n    def take_part(self): ...\n"
            "class _Twice: ...\nasync def take(): ...\n"
        )
    found = count_names(tmp_path)
    assert found.one_word_functions == 0.5
    assert found.one_word_classes == 1.0
    assert found.find_repeated_classes() == {
        "Twice": ["gateway/one.py", "backends/one.py", "calibration/one.py"]
    }


def test_the_script_prints_the_shares(names):
    said = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, check=True
    ).stdout
    assert f"functions of one word: {names.one_word_functions:.0%} of" in said
    assert f"classes of one word: {names.one_word_classes:.0%} of" in said
