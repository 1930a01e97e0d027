"""`joulegate keys …`: options here, work in `gateway.commands.keys`, imported when called."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="API keys: make one, list them, revoke one. A gateway takes the file into force by "
    "itself (`keys: {file: keys.yaml}` in its config).",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_File = Annotated[Path, typer.Option("--file", help="The file of keys.")]
_DEFAULT = Path("keys.yaml")


@app.command("new")
def make_key(
    tenant: Annotated[str, typer.Option("--tenant", help="Whose key it is: a label of metrics.")],
    file: _File = _DEFAULT,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A model that may answer it; default: all.")
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option("--preset", help="`auto` or `auto:NAME` that it may ask for; default: all."),
    ] = None,
    priority: Annotated[
        int, typer.Option(min=-100, max=100, help="Those with more of it wait less.")
    ] = 0,
) -> None:
    """Make a key, note its digest in the file, and print the key: it is not shown again."""
    from gateway.commands import keys  # noqa: PLC0415

    raise typer.Exit(
        code=keys.make_key(file, tenant, models=model, presets=preset, priority=priority)
    )


@app.command("list")
def list_keys(
    file: _File = _DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the keys by their public names, with what each may do."""
    from gateway.commands import keys  # noqa: PLC0415

    raise typer.Exit(code=keys.list_keys(file, as_json=as_json))


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's public name, as `keys list` has it.")],
    file: _File = _DEFAULT,
) -> None:
    """Refuse a key from now on; its entry stays, with the time."""
    from gateway.commands import keys  # noqa: PLC0415

    raise typer.Exit(code=keys.revoke_key(file, key_id))
