"""`joulegate plot | report`: options here, work beside; `calibration.cli` makes them commands."""

from pathlib import Path
from typing import Annotated

import typer

_Profile = Annotated[Path | None, typer.Option(help="Profile file; default: the shipped one.")]
_Rows = Annotated[
    list[Path] | None, typer.Option(help="CSV file of measured rows, plain or gzip; repeatable.")
]
_Prompts = Annotated[
    Path | None, typer.Option(help="Prompts: CSV, JSONL, JSON; default: built-in lengths.")
]
_PromptColumn = Annotated[str | None, typer.Option(help="Its column with the prompts.")]
_Length = Annotated[
    list[str] | None, typer.Option(help="IN:OUT tokens of a request to show; repeatable.")
]
_Weights = Annotated[
    list[str] | None, typer.Option(help="ACCURACY,ENERGY,TIME to show; repeatable.")
]
_Running = Annotated[int, typer.Option(min=0, help="Requests running at each model.")]
_Col = Annotated[list[str] | None, typer.Option(help="OURS=THEIRS, as for fit.")]
_Scale = Annotated[list[str] | None, typer.Option(help="OURS=FACTOR, as for fit.")]
_Where = Annotated[list[str] | None, typer.Option(help="COLUMN=TEXT, as for fit.")]
_Model = Annotated[list[str] | None, typer.Option(help="NAME or NAME=TEXT, as for fit.")]
_IncludesPrompt = Annotated[
    bool, typer.Option("--output-includes-prompt", help="Subtract tokens in from tokens out.")
]
_MaxBad = Annotated[
    float, typer.Option(min=0, max=1, help="Largest share of rows that may be unusable.")
]


def plot(
    out: Annotated[Path, typer.Option(help="Directory for the pictures.")] = Path("pictures"),
    format_: Annotated[str, typer.Option("--format", help="png, svg or both.")] = "both",
    only: Annotated[
        list[str] | None, typer.Option(help="Name of a picture; repeatable. Default: all.")
    ] = None,
    profile: _Profile = None,
    rows: _Rows = None,
    prompts: _Prompts = None,
    prompt_column: _PromptColumn = None,
    length: _Length = None,
    weights: _Weights = None,
    running: _Running = 0,
    col: _Col = None,
    scale: _Scale = None,
    where: _Where = None,
    model: _Model = None,
    output_includes_prompt: _IncludesPrompt = False,
    max_bad: _MaxBad = 0.01,
) -> None:
    """Draw the pictures of a profile and its rows; see docs/pictures.md."""
    from calibration.plots import command  # noqa: PLC0415
    from calibration.plots.plot_data import PlotSources  # noqa: PLC0415

    sources = PlotSources(
        profile=profile,
        rows=rows or [],
        prompts=prompts,
        prompt_column=prompt_column,
        length=length or [],
        weights=weights or [],
        running=running,
        col=col or [],
        scale=scale or [],
        where=where or [],
        model=model or [],
        output_includes_prompt=output_includes_prompt,
        max_bad=max_bad,
    )
    options = command.PlotOptions(sources=sources, out=out, format=format_, only=only or [])
    raise typer.Exit(code=command.run(options))


def report(
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    profile: _Profile = None,
    rows: _Rows = None,
    prompts: _Prompts = None,
    prompt_column: _PromptColumn = None,
    length: _Length = None,
    weights: _Weights = None,
    running: _Running = 0,
    col: _Col = None,
    scale: _Scale = None,
    where: _Where = None,
    model: _Model = None,
    output_includes_prompt: _IncludesPrompt = False,
    max_bad: _MaxBad = 0.01,
) -> None:
    """Write all pictures and their numbers into one HTML file; see docs/pictures.md."""
    from calibration.plots import html_report as reporting  # noqa: PLC0415
    from calibration.plots.plot_data import PlotSources  # noqa: PLC0415

    sources = PlotSources(
        profile=profile,
        rows=rows or [],
        prompts=prompts,
        prompt_column=prompt_column,
        length=length or [],
        weights=weights or [],
        running=running,
        col=col or [],
        scale=scale or [],
        where=where or [],
        model=model or [],
        output_includes_prompt=output_includes_prompt,
        max_bad=max_bad,
    )
    options = reporting.ReportOptions(sources=sources, out=out)
    raise typer.Exit(code=reporting.run(options))
