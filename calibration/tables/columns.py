"""Maps the columns of a user's file to ours: `--col`, `--scale`, `--where`, `--model`.

The names on the left are ours (those that `joulegate profile` writes); a file that uses them needs
no option at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isfinite

REQUIRED_COLUMNS = ("tokens_in", "tokens_out", "seconds")
NUMERIC_COLUMNS = (*REQUIRED_COLUMNS, "joules", "running", "tiktoken_in", "cached_tokens")
TEXT_COLUMNS = ("model", "method", "hardware", "engine", "at", "prompt", "cell")
KNOWN_COLUMNS = (*NUMERIC_COLUMNS, *TEXT_COLUMNS)


class BadInput(ValueError):
    """Input or options that cannot be used; the message says what to do."""


def check_choice(value: str, option: str, known: Iterable[str]) -> str:
    """Return an option's value. Raises BadInput where it is none of those `known`."""
    if value not in (names := tuple(known)):
        raise BadInput(f"{option} {value}: is none of {', '.join(names)}")
    return value


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """How to read the files.

    `names` maps our name to the file's; `scales` our name to a factor (joules=0.001 for mJ);
    `where` a column of the file to the texts it may hold; `models` a profile key to the text that
    the rows have for it.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    where: Mapping[str, frozenset[str]] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    output_includes_prompt: bool = False

    @classmethod
    def from_options(
        cls,
        col: Iterable[str] = (),
        scale: Iterable[str] = (),
        where: Iterable[str] = (),
        model: Iterable[str] = (),
        *,
        output_includes_prompt: bool = False,
    ) -> "ColumnMapping":
        """Read the options' `LEFT=RIGHT` texts. Raises BadInput naming the option."""
        names = dict(_parse_known_pair(pair, "--col", KNOWN_COLUMNS) for pair in col)
        scales = {
            name: _parse_factor(name, text)
            for name, text in (
                _parse_known_pair(pair, "--scale", NUMERIC_COLUMNS) for pair in scale
            )
        }
        wheres: dict[str, frozenset[str]] = {}
        for name, text in (_split_pair(given, "--where") for given in where):
            wheres[name] = wheres.get(name, frozenset()) | {text}
        models: dict[str, str] = {}
        for given in model:
            key, _, text = given.partition("=")
            if not key.strip():
                raise BadInput(f"--model {given}: want NAME, or NAME=TEXT")
            models[key.strip()] = text.strip() or key.strip()
        return cls(names, scales, wheres, models, output_includes_prompt)

    def match_header(self, header: Iterable[str], file: str) -> dict[str, str]:
        """Return the columns to read, the file's name -> ours; those of --where map to themselves.

        Raises BadInput that lists what the file has where one that is needed is not there.
        """
        have = [name.strip() for name in header]
        chosen = {ours: self.names.get(ours, ours) for ours in KNOWN_COLUMNS}
        missing = [
            ours
            for ours, theirs in chosen.items()
            if theirs not in have and (ours in REQUIRED_COLUMNS or ours in self.names)
        ]
        if missing:
            raise BadInput(_describe_missing_columns(file, missing, chosen, have))
        absent = [name for name in self.where if name not in have]
        if absent:
            raise BadInput(
                f"{file}: --where {absent[0]}=…: no such column; it has: {', '.join(have)}"
            )
        twice = {theirs for theirs in chosen.values() if have.count(theirs) > 1}
        if twice:
            raise BadInput(f"{file}: two columns are named {', '.join(sorted(twice))}")
        return {ours: theirs for ours, theirs in chosen.items() if theirs in have}


def _describe_missing_columns(
    file: str, missing: list[str], chosen: Mapping[str, str], have: list[str]
) -> str:
    named = " or ".join(dict.fromkeys(f"{chosen[ours]!r}" for ours in missing))
    hints = " ".join(f"--col {ours}={_guess_column(ours, have) or 'NAME'}" for ours in missing)
    return f"{file}: no column {named}; it has: {', '.join(have)}; say which is which: {hints}"


def _guess_column(ours: str, have: list[str]) -> str | None:
    """Guess the column by its name; None where no name is similar."""
    words = {
        "tokens_in": ("input_tokens", "prompt_tokens", "in_tokens"),
        "tokens_out": ("output_tokens", "completion_tokens", "out_tokens", "generated_tokens"),
        "seconds": ("runtime_seconds", "duration_seconds", "latency", "runtime", "duration"),
        "joules": ("energy_joules", "energy", "energy_j"),
    }.get(ours, (ours,))
    for word in words:
        found = get_close_matches(word, have, n=1, cutoff=0.8)
        if found:
            return found[0]
    return None


def parse_name_pairs(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Read `OURS=THEIRS`, or a name that is both. Raises BadInput."""
    found = {}
    for text in pairs:
        ours, _, theirs = (part.strip() for part in text.partition("="))
        if not ours:
            raise BadInput(f"{option} {text}: want NAME, or NAME=THEIRS")
        found[ours] = theirs or ours
    return found


def _split_pair(given: str, option: str) -> tuple[str, str]:
    left, equals, right = given.partition("=")
    if not equals or not left.strip():
        raise BadInput(f"{option} {given}: want LEFT=RIGHT")
    return left.strip(), right.strip()


def _parse_known_pair(given: str, option: str, known: tuple[str, ...]) -> tuple[str, str]:
    left, right = _split_pair(given, option)
    if left not in known:
        raise BadInput(f"{option} {given}: {left!r} is none of {', '.join(known)}")
    if not right:
        raise BadInput(f"{option} {given}: nothing after the =")
    return left, right


def _parse_factor(name: str, text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not (isfinite(factor) and factor > 0.0):
        raise BadInput(f"--scale {name}={text}: want a positive number")
    return factor
