"""Count the names that are one word: `python tests/word_counts.py [ROOT]`.

A name that is one word ("settle", "Options") has to be looked up; one of two ("apportion_joules",
"ReplayOptions") says what it is. Functions and methods are counted by definition, those that
Python names (`__init__`) left out; a leading underscore is no word. HTTPServer counts as two.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("gateway", "backends", "calibration")
ROOT = Path(__file__).resolve().parents[1]
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


@dataclass
class NameCounts:
    """Every definition's name, in the order found; classes with the file they stand in."""

    functions: list[str] = field(default_factory=list)
    classes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def one_word_functions(self) -> float:
        """The share of functions and methods whose name is one word."""
        return sum(is_one_word(name) for name in self.functions) / len(self.functions)

    @property
    def one_word_classes(self) -> float:
        """The share of classes whose name is one word."""
        return sum(is_one_word(name) for name, _ in self.classes) / len(self.classes)

    def find_repeated_classes(self) -> dict[str, list[str]]:
        """Return the public class names that more than one file has, with the files."""
        names = Counter(name for name, _ in self.classes if not name.startswith("_"))
        return {
            name: [file for other, file in self.classes if other == name]
            for name, count in names.items()
            if count > 1
        }


def is_one_word(name: str) -> bool:
    """Whether a name is one word, by underscores and capitals."""
    return sum(len(_WORD.findall(part)) for part in name.split("_")) <= 1


def count_names(root: Path = ROOT) -> NameCounts:
    """Read every module of the three packages."""
    found = NameCounts()
    for path in _list_modules(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.classes.append((node.name, str(path.relative_to(root))))
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not (
                node.name.startswith("__") and node.name.endswith("__")
            ):
                found.functions.append(node.name)
    return found


def _list_modules(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((root / package).rglob("*.py"))


if __name__ == "__main__":
    counts = count_names(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
    print(
        f"functions of one word: {counts.one_word_functions:.0%} of {len(counts.functions)}\n"
        f"classes of one word: {counts.one_word_classes:.0%} of {len(counts.classes)}"
    )
    for name, files in counts.find_repeated_classes().items():
        print(f"{name}: {', '.join(files)}")
