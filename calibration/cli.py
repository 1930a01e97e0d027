"""`joulegate profile | fit | accuracy | plot | report | replay`: options here, work beside.

Each command imports its module only when called; `gateway.cli` passes these names on by name, so
that the serving side never imports the numeric stack.
"""

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
