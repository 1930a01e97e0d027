"""`joulegate …`: the commands; options beside, work in `gateway.commands`, imported when called."""

import importlib
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from backends.install_hint import suggest_install
from gateway.command_options import take_options
from gateway.commands import keys_options, library_options
from gateway.commands.backend_options import BackendOptions
from gateway.commands.check_options import CheckOptions
from gateway.commands.demo.options import DemoOptions
from gateway.commands.drain_options import DrainOptions, UndrainOptions
from gateway.commands.meter_options import MeterOptions
from gateway.commands.route_options import RouteOptions
from gateway.commands.serve_options import ServeOptions
from gateway.telemetry import forget_foreign_folder

app = typer.Typer(
    name="joulegate",
    help="An OpenAI-compatible gateway that picks the vLLM model with the best accuracy, energy "
    "and time for each request.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"joulegate {version('joulegate')}")
        raise typer.Exit


@app.callback()
def _prepare_process(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    forget_foreign_folder()


@app.command()
@take_options(ServeOptions)
def serve(options: ServeOptions) -> int:
    """Run the gateway."""
    from gateway.commands import serve as command  # noqa: PLC0415

    return command.run(options)


@app.command()
@take_options(DemoOptions)
def demo(options: DemoOptions) -> int:
    """Simulated backends, a meter and the gateway on loopback, and a table of what it chose."""
    from gateway.commands.demo import command  # noqa: PLC0415

    return command.run(options)


@app.command()
@take_options(RouteOptions)
def route(options: RouteOptions) -> int:
    """Show how a prompt would be routed and why; offline, nothing is sent."""
    from gateway.commands import route as command  # noqa: PLC0415

    return command.run(options)


@app.command()
@take_options(MeterOptions)
def meter(options: MeterOptions) -> int:
    """Measure each request's joules, beside the backends whose GPUs these are."""
    from gateway.commands import meter as command  # noqa: PLC0415

    return command.run(options)


@app.command()
@take_options(CheckOptions)
def check(options: CheckOptions) -> int:
    """Validate a config and its profile, or the meter's, or print a config's JSON Schema."""
    from gateway.commands import check as command  # noqa: PLC0415

    return command.run(options)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@take_options(BackendOptions)
def backend(options: BackendOptions) -> int:
    """Serve one of the three models with vLLM (further options are passed on), or simulate it."""
    from gateway.commands import backend as command  # noqa: PLC0415

    return command.run(options)


@app.command()
@take_options(DrainOptions)
def drain(options: DrainOptions) -> int:
    """Have a running gateway send one backend nothing new; what runs there ends there."""
    from gateway.commands import drain as command  # noqa: PLC0415

    return command.run(options)


@app.command()
@take_options(UndrainOptions)
def undrain(options: UndrainOptions) -> int:
    """Have a running gateway send a drained backend requests again."""
    from gateway.commands import drain as command  # noqa: PLC0415

    return command.undrain_backend(options)


app.add_typer(keys_options.app, name="keys")
app.add_typer(library_options.app, name="library")


def main() -> None:
    """Run the command line."""
    app(prog_name="joulegate")


_CALIBRATION = {
    "profile": "Measure backends under designed load, one row a request.",
    "fit": "Fit cost regressions to measured rows and write a profile.",
    "accuracy": "Set a model's accuracy from scores, labels or a graded run.",
    "recalibrate": "Refit the profile from the gateways' own traffic, by way of Prometheus.",
    "plot": "Draw the pictures of a profile.",
    "report": "Write a one-file HTML report of a profile.",
    "savings": "Say what routing saves, by a switchback experiment read out of Prometheus.",
    "lengths": "Train and try models of answer lengths by the words of a prompt.",
    "replay": "Run recorded requests through other weights, policies or profiles.",
}


class _CalibrationCommand(TyperCommand):
    """A command that `calibration.cli` has; what can be completed is asked of it."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return its options, or nothing where the extra is not installed."""
        try:
            module = importlib.import_module("calibration.cli")
        except ModuleNotFoundError:
            return []
        group: Any = typer.main.get_command(module.app)
        found: list[Any] = group.commands[self.name].shell_complete(ctx, incomplete)
        return found


def _run_calibration_command(context: typer.Context) -> None:
    """Hand the command to `calibration.cli`, by name: serving never imports it."""
    try:
        module = importlib.import_module("calibration.cli")
        module.app([str(context.info_name), *context.args], prog_name="joulegate")
    except ModuleNotFoundError as error:
        extra = "recalibration" if context.info_name == "recalibrate" else "calibration"
        typer.echo(f"joulegate: {error}; {suggest_install(extra)}", err=True)
        from gateway.console import UNUSABLE  # noqa: PLC0415 - loads rich

        raise typer.Exit(code=UNUSABLE) from None


for _name, _help in _CALIBRATION.items():
    app.command(
        _name,
        cls=_CalibrationCommand,
        help=_help,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_run_calibration_command)


if __name__ == "__main__":
    main()
