"""`joulegate profile | fit | accuracy | recalibrate | …`: options here, work beside.

Each command imports its module only when called; `gateway.cli` passes these names on by name, so
that the serving side never imports the numeric stack.
"""

from pathlib import Path
from typing import Annotated

import typer

from calibration.plots import options as cli_pictures
from calibration.recalibrate import options as cli_recalibrate

app = typer.Typer(
    name="joulegate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


lengths = typer.Typer(no_args_is_help=True, help="Answer lengths by the words of a prompt.")
app.add_typer(lengths, name="lengths")


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
    from calibration.profile import command as profiling  # noqa: PLC0415
    from calibration.profile import options as profile_options  # noqa: PLC0415

    options = profile_options.ProfileOptions(
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
    from calibration.fit import command as fit_command  # noqa: PLC0415

    options = fit_command.FitOptions(
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


app.command()(cli_recalibrate.recalibrate)
app.command()(cli_pictures.plot)
app.command()(cli_pictures.report)


@app.command()
def accuracy(
    file: Annotated[Path, typer.Argument(help="Scores, labels, questions or lm-eval's results.")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="scores, labels, questions or lm-eval; default: by content."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Profile to change: FILE, or shipped with --out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Profile to write instead of --profile.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="NAME, or NAME=THEIRS: which models; default: all.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="lm-eval: TASK, or OURS=THEIRS; default: all.")
    ] = None,
    overall: Annotated[
        str, typer.Option(help="Accuracy over all tasks: pooled, mean of the tasks, or keep.")
    ] = "pooled",
    task_depth: Annotated[
        int | None, typer.Option(min=1, help="Parts of a/task/name to tell tasks apart by.")
    ] = None,
    label_columns: Annotated[
        str | None, typer.Option(help="Labels: A,B or MODEL=COLUMN,…: a column for each model.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="lm-eval: acc, acc_norm, exact_match…")] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Questions: MODEL=URL to ask; may be repeated.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Questions: file for the answers, resumed if there.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Questions without a kind: choice, exact or number.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each question.")] = 1,
    score: Annotated[str, typer.Option(help="Of several samples: mean or majority.")] = "mean",
    temperature: Annotated[
        float | None, typer.Option(help="Default: 0, or 0.7 for several samples.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most new tokens of an answer.")] = 1024,
    seed: Annotated[int, typer.Option(help="Of the sampling, and of --limit.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once per backend.")] = 8,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Ask so many questions, drawn by the seed.")
    ] = None,
    api: Annotated[str, typer.Option(help="chat or completions.")] = "chat",
    suffix: Annotated[
        str | None, typer.Option(help="Text after each prompt; auto asks for a final answer.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    body: Annotated[str | None, typer.Option(help="JSON object to add to each request.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the backends' key.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no profile.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Set a model's accuracy from scores, labels or a graded run; see docs/accuracy.md."""
    from calibration.accuracy import command as accuracy_command  # noqa: PLC0415
    from calibration.accuracy import options as accuracy_options  # noqa: PLC0415

    options = accuracy_options.AccuracyOptions(
        file=file,
        source=source,
        profile=profile,
        out=out,
        model=model or [],
        task=task or [],
        overall=overall,
        task_depth=task_depth,
        label_columns=label_columns,
        metric=metric,
        backend=backend or [],
        results=results,
        kind=kind,
        samples=samples,
        score=score,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        concurrency=concurrency,
        limit=limit,
        api=api,
        suffix=suffix,
        system=system,
        body=body,
        api_key_env=api_key_env,
        dry_run=dry_run,
        as_json=as_json,
    )
    raise typer.Exit(code=accuracy_command.run(options))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="The gateway's decision log, or prompts.")],
    weights: Annotated[
        list[str] | None,
        typer.Option(help="[NAME:]accuracy=N,energy=N,time=N, or own; may be repeated."),
    ] = None,
    preset: Annotated[
        list[str] | None, typer.Option(help="default, accuracy, energy, time or balanced.")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="relative, fair-ols, hybrid or own.")
    ] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="FILE, NAME=FILE or shipped (default).")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="NAME, or NAME=KEY in the profile: only these.")
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="MODEL=TOKENS, where it is not a shipped one.")
    ] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Column with the prompts.")] = None,
    pinned: Annotated[
        bool, typer.Option("--pinned", help="Take requests that named their model, too.")
    ] = False,
    lengths: Annotated[
        str, typer.Option(help="Price by recorded tokens, or by those predicted.")
    ] = "recorded",
    max_bad: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of lines that may be bad.")
    ] = 0.05,
    replicates: Annotated[int, typer.Option(min=100, max=100_000, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Run recorded requests through other weights, policies or profiles; see docs/replay.md."""
    from calibration.replay import command as replay_command  # noqa: PLC0415

    options = replay_command.ReplayOptions(
        file=file,
        weights=weights or [],
        preset=preset or [],
        policy=policy or [],
        profile=profile or [],
        model=model or [],
        context=context or [],
        prompt_column=prompt_column,
        pinned=pinned,
        lengths=lengths,
        max_bad=max_bad,
        replicates=replicates,
        seed=seed,
        as_json=as_json,
    )
    raise typer.Exit(code=replay_command.run(options))


@lengths.command("train")
def train_lengths(
    files: Annotated[list[Path], typer.Argument(help="CSV or JSON lines, gzip too.")],
    out: Annotated[Path, typer.Option(help="Profile file to write.")],
    label: Annotated[
        list[str], typer.Option(help="MODEL=COLUMN with its answers' tokens; may be repeated.")
    ],
    prompt: Annotated[str, typer.Option(help="Column with the prompts.")] = "prompt",
    merge: Annotated[
        Path | None, typer.Option(help="Profile to add to; default: the shipped one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train a model of the prompt's words per label; see docs/deciding.md."""
    from calibration.lengths import command as lengths_command  # noqa: PLC0415

    raise typer.Exit(
        code=lengths_command.train(
            files, prompt=prompt, labels=label, base=merge, out=out, as_json=as_json
        )
    )


@lengths.command("predict")
def predict_lengths(
    file: Annotated[Path, typer.Argument(help="CSV or JSON lines, gzip too.")],
    profile: Annotated[Path, typer.Option(help="Profile that `train` wrote.")],
    prompt: Annotated[str, typer.Option(help="Column with the prompts.")] = "prompt",
    out: Annotated[Path | None, typer.Option(help="CSV to write; default: stdout.")] = None,
) -> None:
    """Write MODEL_p50 and MODEL_p90 for each prompt, by the code that serves."""
    from calibration.lengths import command as lengths_command  # noqa: PLC0415

    raise typer.Exit(
        code=lengths_command.predict(file, prompt=prompt, profile_file=profile, out=out)
    )
