"""`joulegate profile | fit | accuracy | recalibrate | …`: options and work beside.

Each command imports its work only when called; `gateway.cli` passes these names on by name, so
that the serving side never imports the numeric stack.
"""

from pathlib import Path
from typing import Annotated

import typer

from calibration.accuracy.options import AccuracyOptions
from calibration.command_options import take_options
from calibration.fit.options import FitOptions
from calibration.plots.options import PlotOptions, ReportOptions
from calibration.profile.options import ProfileOptions
from calibration.recalibrate import options as cli_recalibrate
from calibration.replay.options import ReplayOptions
from calibration.savings import options as cli_savings

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
    """Measure, fit and show; needs the extra `calibration`."""


@app.command()
@take_options(ProfileOptions)
def profile(options: ProfileOptions) -> int:
    """Measure backends under designed load, one row a request; see docs/profiling.md."""
    from calibration.profile import command  # noqa: PLC0415

    return command.run(options)


@app.command()
@take_options(FitOptions)
def fit(options: FitOptions) -> int:
    """Fit cost regressions to measured rows and write a profile; see docs/fitting.md."""
    from calibration.fit import command  # noqa: PLC0415

    return command.run(options)


app.command()(cli_recalibrate.recalibrate)
app.command()(cli_savings.savings)


@app.command()
@take_options(PlotOptions)
def plot(options: PlotOptions) -> int:
    """Draw the pictures of a profile and its rows; see docs/pictures.md."""
    from calibration.plots import command  # noqa: PLC0415

    return command.run(options)


@app.command()
@take_options(ReportOptions)
def report(options: ReportOptions) -> int:
    """Write all pictures and their numbers into one HTML file; see docs/pictures.md."""
    from calibration.plots import html_report  # noqa: PLC0415

    return html_report.run(options)


@app.command()
@take_options(AccuracyOptions)
def accuracy(options: AccuracyOptions) -> int:
    """Set a model's accuracy from scores, labels or a graded run; see docs/accuracy.md."""
    from calibration.accuracy import command  # noqa: PLC0415

    return command.run(options)


@app.command()
@take_options(ReplayOptions)
def replay(options: ReplayOptions) -> int:
    """Run recorded requests through other weights, policies or profiles; see docs/replay.md."""
    from calibration.replay import command  # noqa: PLC0415

    return command.run(options)


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
