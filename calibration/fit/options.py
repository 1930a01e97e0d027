"""The options of `joulegate fit`: light, for its help is shown without the numeric stack."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class FitOptions:
    """The command line, as it was typed."""

    files: Annotated[list[Path], typer.Argument(help="CSV files, plain or gzip.")]
    col: Annotated[
        list[str],
        typer.Option(help="OURS=THEIRS: which column is tokens_in, tokens_out, seconds, joules…"),
    ] = field(default_factory=list)
    model: Annotated[
        list[str], typer.Option(help="NAME, or NAME=TEXT in the model column or file name.")
    ] = field(default_factory=list)
    scale: Annotated[list[str], typer.Option(help="OURS=FACTOR: joules=0.001.")] = field(
        default_factory=list
    )
    where: Annotated[list[str], typer.Option(help="COLUMN=TEXT: only such rows.")] = field(
        default_factory=list
    )
    output_includes_prompt: Annotated[
        bool, typer.Option("--output-includes-prompt", help="Subtract tokens in from tokens out.")
    ] = False
    form: Annotated[
        str, typer.Option(help="additive, interaction, context, load, load-context or best.")
    ] = "best"
    loss: Annotated[
        str,
        typer.Option(help="absolute, relative or auto (relative for rows of joulegate profile)."),
    ] = "auto"
    folds: Annotated[int, typer.Option(min=2, max=100, help="Of the cross-validation.")] = 5
    max_bad: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of rows that may be unusable.")
    ] = 0.01
    out: Annotated[Path | None, typer.Option(help="Profile to write; default: report only.")] = None
    merge: Annotated[
        str | None,
        typer.Option(help="Profile to merge into: FILE, shipped or none; default: --out, if any."),
    ] = None
    accuracy: Annotated[
        list[str], typer.Option(help="SHARE, or MODEL=SHARE, of right answers.")
    ] = field(default_factory=list)
    hardware: Annotated[str | None, typer.Option(help="If the rows do not say it.")] = None
    engine: Annotated[str | None, typer.Option(help="If the rows do not say it.")] = None
    report: Annotated[
        str, typer.Option(help="fit, or reference: the reference project's published figures.")
    ] = "fit"
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False
