"""`joulegate profile | fit | accuracy | recalibrate | …`: options and work beside.

Each command imports its work only when called; `gateway.cli` passes these names on by name, so
that the serving side never imports the numeric stack.
"""

from typing import Any

import typer
from typer.core import TyperGroup

from calibration.accuracy.options import AccuracyOptions, TrainOptions
from calibration.fit.options import FitOptions
from calibration.lengths.options import TrainLengthsOptions
from calibration.plots.options import PlotOptions, ReportOptions
from calibration.profile.options import ProfileOptions
from calibration.recalibrate.options import RecalibrateOptions
from calibration.replay.options import ReplayOptions
from calibration.savings.options import SavingsOptions
from calibration.tables.predictions import PredictOptions
from gateway.command_options import take_options

app = typer.Typer(
    name="joulegate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


lengths = typer.Typer(no_args_is_help=True, help="Answer lengths by the words of a prompt.")
app.add_typer(lengths, name="lengths")


class SetByDefault(TyperGroup):
    """`joulegate accuracy FILE` is `joulegate accuracy set FILE`, as it was before the others."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `set` in front of what names no command."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args.insert(0, "set")
        return super().parse_args(ctx, args)


accuracy = typer.Typer(
    cls=SetByDefault, no_args_is_help=True, help="Accuracy: set it, or train it by prompt."
)
app.add_typer(accuracy, name="accuracy")


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


@app.command()
@take_options(RecalibrateOptions)
def recalibrate(options: RecalibrateOptions) -> int:
    """Refit the profile from the gateways' own traffic; see docs/recalibration.md."""
    from calibration.recalibrate import command  # noqa: PLC0415

    return command.run(options)


@app.command()
@take_options(SavingsOptions)
def savings(options: SavingsOptions) -> int:
    """Say what routing saves, by a switchback experiment; see docs/savings.md."""
    from calibration.savings import command  # noqa: PLC0415

    return command.run(options)


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


@accuracy.command("set")
@take_options(AccuracyOptions)
def set_accuracy(options: AccuracyOptions) -> int:
    """Set a model's accuracy from scores, labels or a graded run; see docs/accuracy.md."""
    from calibration.accuracy import command  # noqa: PLC0415

    return command.run(options)


@accuracy.command("train")
@take_options(TrainOptions)
def train_accuracy(options: TrainOptions) -> int:
    """Train accuracy by prompt from labelled prompts; see docs/accuracy.md."""
    from calibration.accuracy import train_command  # noqa: PLC0415

    return train_command.train(options)


@accuracy.command("predict")
@take_options(PredictOptions)
def predict_accuracy(options: PredictOptions) -> int:
    """Write each model's chance of being right on each prompt, by the code that serves."""
    from calibration.accuracy import train_command  # noqa: PLC0415

    return train_command.predict(options)


@app.command()
@take_options(ReplayOptions)
def replay(options: ReplayOptions) -> int:
    """Run recorded requests through other weights, policies or profiles; see docs/replay.md."""
    from calibration.replay import command  # noqa: PLC0415

    return command.run(options)


@lengths.command("train")
@take_options(TrainLengthsOptions)
def train_lengths(options: TrainLengthsOptions) -> int:
    """Train a model of the prompt's words per label; see docs/deciding.md."""
    from calibration.lengths import command  # noqa: PLC0415

    return command.train(options)


@lengths.command("predict")
@take_options(PredictOptions)
def predict_lengths(options: PredictOptions) -> int:
    """Write MODEL_p50 and MODEL_p90 for each prompt, by the code that serves."""
    from calibration.lengths import command  # noqa: PLC0415

    return command.predict(options)
