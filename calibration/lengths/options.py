"""Options of `joulegate lengths train`: light, shown without the numeric stack."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class TrainLengthsOptions:
    """The command line of `train`, as it was typed."""

    files: Annotated[list[Path], typer.Argument(help="CSV or JSON lines, gzip too.")]
    out: Annotated[Path, typer.Option(help="Profile file to write.")]
    label: Annotated[
        list[str], typer.Option(help="MODEL=COLUMN with its answers' tokens; may be repeated.")
    ]
    prompt: Annotated[str, typer.Option(help="Column with the prompts.")] = "prompt"
    merge: Annotated[
        Path | None, typer.Option(help="Profile to add to; default: the shipped one.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False
