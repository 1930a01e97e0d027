"""`joulegate library …`: options here, work in `gateway.commands.library`, imported when called."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Costs of models on real GPUs, measured by the ML.ENERGY leaderboard, for a profile.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Name = Annotated[str, typer.Argument(help="MODEL@GPU, as `library list` names it.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command("list")
def list_entries(
    containing: Annotated[
        str | None, typer.Argument(help="Only entries whose name has this text in it.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """List the entries: joules and time per token by load, idle watts, and how far off they are."""
    from gateway.commands import library  # noqa: PLC0415

    raise typer.Exit(code=library.list_entries(containing or "", as_json=as_json))


@app.command("show")
def show_entry(name: _Name, as_json: _Json = False) -> None:
    """Show one entry as it would stand in a profile, and where each number comes from."""
    from gateway.commands import library  # noqa: PLC0415

    raise typer.Exit(code=library.show_entry(name, as_json=as_json))


@app.command("add")
def add_entry(
    name: _Name,
    key: Annotated[str, typer.Option("--as", help="What the profile is to call it.")],
    profile: Annotated[
        Path, typer.Option(help="Profile to write into; made where there is none.")
    ] = Path("profile.json"),
    accuracy: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of right answers; default: 0.5.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace the costs of a model that the profile has."),
    ] = False,
) -> None:
    """Write an entry into a profile; its other models stay as they are."""
    from gateway.commands import library  # noqa: PLC0415

    raise typer.Exit(code=library.add_entry(name, key, profile, accuracy=accuracy, replace=replace))
