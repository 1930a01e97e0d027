"""A prediction for each prompt of a file: the options of the `predict` commands, and their CSV.

Light: their help is shown without the numeric stack.
"""

import csv
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """The command line of `predict`, as it was typed."""

    file: Annotated[Path, typer.Argument(help="CSV or JSON lines, gzip too.")]
    profile: Annotated[Path, typer.Option(help="Profile that `train` wrote.")]
    prompt: Annotated[str, typer.Option(help="Column with the prompts.")] = "prompt"
    out: Annotated[Path | None, typer.Option(help="CSV to write; default: stdout.")] = None


def write_predictions(
    out: Path | None, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Write a CSV, to stdout where `out` is None. Raises OSError."""
    to_stdout = nullcontext(sys.stdout)
    with out.open("w", newline="", encoding="utf-8") if out else to_stdout as target:
        writer = csv.writer(target)
        writer.writerow(columns)
        writer.writerows(rows)
