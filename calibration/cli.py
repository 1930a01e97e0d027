"""`joulegate profile | fit | accuracy | plot | report | replay`: options here, work beside.

Each command imports its module only when called; `gateway.cli` passes these names on by name, so
that the serving side never imports the numeric stack.
"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="joulegate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def calibration() -> None:
    """Measure, fit and show; needs `pip install 'joulegate[calibration]'`."""


@app.command()
def profile(
    backend: Annotated[list[str], typer.Option(help="MODEL=URL to measure; may be repeated.")],
    out: Annotated[Path | None, typer.Option(help="CSV file for the rows.")] = None,
    grid: Annotated[str | None, typer.Option(help="full or small; default: full.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts to send instead: CSV, JSONL, JSON.")
    ] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Its column with the prompts.")] = None,
    api: Annotated[str, typer.Option(help="chat or completions, for --prompts.")] = "chat",
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Most new tokens of an answer, for --prompts.")
    ] = 1024,
    concurrency: Annotated[
        str | None, typer.Option(help="Requests at once, besides one: 4,16,64 or none.")
    ] = None,
    blocks: Annotated[int, typer.Option(min=1, help="Reshuffled passes over the grid.")] = 3,
    min_cell_seconds: Annotated[float, typer.Option(min=0, help="Least time in a cell.")] = 10.0,
    max_repeats: Annotated[int, typer.Option(min=1, help="Most requests in a cell.")] = 25,
    seed: Annotated[int, typer.Option(help="Of the order and the prompts.")] = 0,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the backends' key.")
    ] = None,
    hardware: Annotated[str | None, typer.Option(help="What it runs on, for the rows.")] = None,
    meter: Annotated[str, typer.Option(help="auto, nvml, simulator or none.")] = "auto",
    gpus: Annotated[str | None, typer.Option(help="GPUs that NVML adds up: 0,1.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show plan and duration.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on where the file ends.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Measure backends under designed load, one row a request; see docs/profiling.md."""
    from calibration import profile_options, profiling  # noqa: PLC0415

    options = profile_options.Options(
        backends=backend,
        out=out,
        grid=grid,
        prompts=prompts,
        prompt_column=prompt_column,
        api=api,
        max_tokens=max_tokens,
        concurrency=concurrency,
        blocks=blocks,
        min_cell_seconds=min_cell_seconds,
        max_repeats=max_repeats,
        seed=seed,
        api_key_env=api_key_env,
        hardware=hardware,
        meter=meter,
        gpus=gpus,
        dry_run=dry_run,
        resume=resume,
        as_json=as_json,
    )
    raise typer.Exit(code=profiling.run(options))


@app.command()
def fit(
    files: Annotated[list[Path], typer.Argument(help="CSV files, plain or gzip.")],
    col: Annotated[
        list[str] | None,
        typer.Option(help="OURS=THEIRS: which column is tokens_in, tokens_out, seconds, joules…"),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="NAME, or NAME=TEXT in the model column or file name.")
    ] = None,
    scale: Annotated[list[str] | None, typer.Option(help="OURS=FACTOR: joules=0.001.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="COLUMN=TEXT: only such rows.")] = None,
    output_includes_prompt: Annotated[
        bool, typer.Option("--output-includes-prompt", help="Subtract tokens in from tokens out.")
    ] = False,
    form: Annotated[str, typer.Option(help="additive, interaction, load or best.")] = "best",
    folds: Annotated[int, typer.Option(min=2, max=100, help="Of the cross-validation.")] = 5,
    max_bad: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of rows that may be unusable.")
    ] = 0.01,
    out: Annotated[
        Path | None, typer.Option(help="Profile to write; default: report only.")
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(help="Profile to merge into: FILE, shipped or none; default: --out, if any."),
    ] = None,
    accuracy: Annotated[
        list[str] | None, typer.Option(help="SHARE, or MODEL=SHARE, of right answers.")
    ] = None,
    hardware: Annotated[str | None, typer.Option(help="If the rows do not say it.")] = None,
    engine: Annotated[str | None, typer.Option(help="If the rows do not say it.")] = None,
    report: Annotated[
        str, typer.Option(help="fit, or reference: the reference project's published figures.")
    ] = "fit",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Fit cost regressions to measured rows and write a profile; see docs/fitting.md."""
    from calibration import fit_command  # noqa: PLC0415

    options = fit_command.Options(
        files=files,
        col=col or [],
        scale=scale or [],
        where=where or [],
        model=model or [],
        output_includes_prompt=output_includes_prompt,
        form=form,
        folds=folds,
        max_bad=max_bad,
        out=out,
        merge=merge,
        accuracy=accuracy or [],
        hardware=hardware,
        engine=engine,
        report=report,
        as_json=as_json,
    )
    raise typer.Exit(code=fit_command.run(options))
