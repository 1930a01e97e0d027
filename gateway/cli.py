"""`joulegate …`: options here, work in `gateway.commands`, imported only when called."""

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from backends.install_hint import suggest_install
from gateway.commands import drain_options, keys_options, library_options
from gateway.telemetry import forget_foreign_folder

app = typer.Typer(
    name="joulegate",
    help="An OpenAI-compatible gateway that picks the vLLM model with the best accuracy, energy "
    "and time for each request.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
_Config = Annotated[
    Path | None, typer.Option("--config", help="gateway.yaml; see docs/reference/config.md.")
]


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


def _run_command(name: str, **options: Any) -> None:
    """Call `gateway.commands.NAME.run`; its return value is the exit code."""
    module = importlib.import_module(f"gateway.commands.{name}")
    raise typer.Exit(code=module.run(**options) or 0)


@app.command()
def serve(
    config: Annotated[Path, typer.Option("--config", help="gateway.yaml.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="Processes; one per core at most.")] = 1,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the gateway."""
    _run_command("serve", config=config, host=host, port=port, workers=workers, log_level=log_level)


@app.command()
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The gateway's port.")] = 8080,
    once: Annotated[bool, typer.Option("--once", help="End after the table.")] = False,
    loop: Annotated[
        bool, typer.Option("--loop", help="Show drift, recalibration and new routing instead.")
    ] = False,
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=1000, help="Simulated seconds per second; default: 20, --loop 40."
        ),
    ] = None,
) -> None:
    """Simulated backends, a meter and the gateway on loopback, and a table of what it chose."""
    _run_command(
        "demo.command", port=port, once=once, speed=speed or (40.0 if loop else 20.0), loop=loop
    )


@app.command()
def route(
    prompt: Annotated[str, typer.Option("--prompt", help="The user's message; - reads stdin.")],
    weight_accuracy: Annotated[float | None, typer.Option(help="How much accuracy counts.")] = None,
    weight_energy: Annotated[float | None, typer.Option(help="How much energy counts.")] = None,
    weight_time: Annotated[float | None, typer.Option(help="How much time counts.")] = None,
    policy: Annotated[str | None, typer.Option(help="relative, fair-ols or hybrid.")] = None,
    model: Annotated[str, typer.Option(help="auto, auto:PRESET or a model's name.")] = "auto",
    max_tokens: Annotated[int | None, typer.Option(help="Limit on new tokens.", min=1)] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Bound on milliseconds.")] = None,
    max_energy_joules: Annotated[float | None, typer.Option(help="Bound on joules.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Bound on accuracy.")] = None,
    infeasible: Annotated[str | None, typer.Option(help="best-effort or reject.")] = None,
    config: _Config = None,
    profile: Annotated[Path | None, typer.Option(help="Profile file; default: shipped.")] = None,
    as_json: _Json = False,
) -> None:
    """Show how a prompt would be routed and why; offline, nothing is sent."""
    _run_command(
        "route",
        prompt=prompt,
        steering={
            "weight-accuracy": weight_accuracy,
            "weight-energy": weight_energy,
            "weight-time": weight_time,
            "policy": policy,
            "max-latency-ms": max_latency_ms,
            "max-energy-joules": max_energy_joules,
            "min-accuracy": min_accuracy,
            "infeasible": infeasible,
        },
        model=model,
        max_tokens=max_tokens,
        config=config,
        profile=profile,
        as_json=as_json,
    )


@app.command()
def meter(
    config: Annotated[
        Path | None, typer.Option("--config", help="meter.yaml, for more than one ledger.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 9464,
    source: Annotated[
        str | None, typer.Option(help="auto (default), nvml, rapl, dcgm, file or simulator.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="GPU by number or UUID (default: all), or the file.")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="URL of a vLLM server on these devices.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Prometheus (dcgm), or the simulated backend.")
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="What gateways must send; also JOULEGATE_METER_SECRET.")
    ] = None,
    no_secret: Annotated[
        bool,
        typer.Option("--no-secret", help="Listen beyond loopback and take events from anybody."),
    ] = False,
    hz: Annotated[
        float | None, typer.Option(min=1, max=200, help="Readings per second; default: 20.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Measure each request's joules, beside the backends whose GPUs these are."""
    _run_command(
        "meter",
        config=config,
        host=host,
        port=port,
        source=source,
        devices=device or [],
        backends=backend or [],
        url=url,
        secret_file=secret_file,
        no_secret=no_secret,
        hz=hz,
        log_level=log_level,
    )


@app.command()
def check(
    config: _Config = None,
    profile: Annotated[Path | None, typer.Option(help="A profile file by itself.")] = None,
    meter: Annotated[Path | None, typer.Option("--meter", help="meter.yaml.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print gateway.yaml's schema.")] = False,
    meter_schema: Annotated[
        bool, typer.Option("--meter-schema", help="Print meter.yaml's schema.")
    ] = False,
    example: Annotated[
        bool, typer.Option("--example", help="Print a gateway.yaml to begin with.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Validate a config and its profile, or the meter's, or print a config's JSON Schema."""
    _run_command(
        "check",
        config=config,
        profile=profile,
        meter=meter,
        schema=schema,
        meter_schema=meter_schema,
        example=example,
        as_json=as_json,
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def backend(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="phi-3-mini, mistral-7b or falcon-7b; with --simulate also a model of --profile, "
            "or MODEL@GPU of the library."
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    model_path: Annotated[Path | None, typer.Option(help="Local weights to load instead.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    simulate: Annotated[bool, typer.Option("--simulate", help="Serve simulated answers.")] = False,
    speed: Annotated[
        float, typer.Option(min=0.001, max=100000, help="Simulator: simulated seconds per second.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Simulator: random seed.")] = 0,
    profile: Annotated[Path | None, typer.Option(help="Simulator: where its truth is.")] = None,
    show: Annotated[bool, typer.Option("--print", help="Print vLLM's command only.")] = False,
) -> None:
    """Serve one of the three models with vLLM (further options are passed on), or simulate it."""
    _run_command(
        "backend",
        model=model,
        host=host,
        port=port,
        model_path=model_path,
        device=device,
        simulate=simulate,
        speed=speed,
        seed=seed,
        profile=profile,
        show=show,
        extra=context.args,
    )


app.command()(drain_options.drain)
app.command()(drain_options.undrain)
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
