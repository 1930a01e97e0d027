"""The options of `joulegate plot | report`: imports no matplotlib, so that --help is fast."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class PlotSources:
    """The inputs of both commands, as typed."""

    profile: Annotated[
        Path | None, typer.Option(help="Profile file; default: the shipped one.")
    ] = None
    rows: Annotated[
        list[Path], typer.Option(help="CSV file of measured rows, plain or gzip; repeatable.")
    ] = field(default_factory=list)
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts: CSV, JSONL, JSON; default: built-in lengths.")
    ] = None
    prompt_column: Annotated[str | None, typer.Option(help="Its column with the prompts.")] = None
    length: Annotated[
        list[str], typer.Option(help="IN:OUT tokens of a request to show; repeatable.")
    ] = field(default_factory=list)
    weights: Annotated[
        list[str], typer.Option(help="ACCURACY,ENERGY,TIME to show; repeatable.")
    ] = field(default_factory=list)
    running: Annotated[int, typer.Option(min=0, help="Requests running at each model.")] = 0
    accuracy: Annotated[
        Path | None, typer.Option(help="What accuracy train --report wrote: its pictures, too.")
    ] = None
    col: Annotated[list[str], typer.Option(help="OURS=THEIRS, as for fit.")] = field(
        default_factory=list
    )
    scale: Annotated[list[str], typer.Option(help="OURS=FACTOR, as for fit.")] = field(
        default_factory=list
    )
    where: Annotated[list[str], typer.Option(help="COLUMN=TEXT, as for fit.")] = field(
        default_factory=list
    )
    model: Annotated[list[str], typer.Option(help="NAME or NAME=TEXT, as for fit.")] = field(
        default_factory=list
    )
    output_includes_prompt: Annotated[
        bool, typer.Option("--output-includes-prompt", help="Subtract tokens in from tokens out.")
    ] = False
    max_bad: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of rows that may be unusable.")
    ] = 0.01

    @property
    def source_files(self) -> list[Path]:
        """All input files."""
        return [
            path
            for path in (self.profile, *self.rows, self.prompts, self.accuracy)
            if path is not None
        ]


@dataclass(frozen=True, slots=True)
class PlotOptions:
    """The command line of `plot`, as typed."""

    out: Annotated[Path, typer.Option(help="Directory for the pictures.")] = Path("pictures")
    format: Annotated[str, typer.Option(help="png, svg or both.")] = "both"
    only: Annotated[
        list[str], typer.Option(help="Name of a picture; repeatable. Default: all.")
    ] = field(default_factory=list)
    sources: PlotSources = field(default_factory=PlotSources)


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """The command line of `report`, as typed."""

    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html")
    sources: PlotSources = field(default_factory=PlotSources)
    command: str | None = None
    """The command to name in the report; None: this process's command line."""
