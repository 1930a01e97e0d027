"""The options of `joulegate replay`: light, for its help is shown without the numeric stack."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """The command line, as it was typed."""

    file: Annotated[Path, typer.Argument(help="The gateway's decision log, or prompts.")]
    weights: Annotated[
        list[str],
        typer.Option(help="[NAME:]accuracy=N,energy=N,time=N, or own; may be repeated."),
    ] = field(default_factory=list)
    preset: Annotated[
        list[str], typer.Option(help="default, accuracy, energy, time or balanced.")
    ] = field(default_factory=list)
    policy: Annotated[list[str], typer.Option(help="relative, fair-ols, hybrid or own.")] = field(
        default_factory=list
    )
    profile: Annotated[list[str], typer.Option(help="FILE, NAME=FILE or shipped (default).")] = (
        field(default_factory=list)
    )
    model: Annotated[
        list[str], typer.Option(help="NAME, or NAME=KEY in the profile: only these.")
    ] = field(default_factory=list)
    context: Annotated[
        list[str], typer.Option(help="MODEL=TOKENS, where it is not a shipped one.")
    ] = field(default_factory=list)
    prompt_column: Annotated[str | None, typer.Option(help="Column with the prompts.")] = None
    pinned: Annotated[
        bool, typer.Option("--pinned", help="Take requests that named their model, too.")
    ] = False
    lengths: Annotated[
        str, typer.Option(help="Price by recorded tokens, or by those predicted.")
    ] = "recorded"
    max_bad: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of lines that may be bad.")
    ] = 0.05
    replicates: Annotated[int, typer.Option(min=100, max=100_000, help="Of the bootstrap.")] = 1000
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False
