"""`joulegate drain` and `undrain`: options here, work in `gateway.commands.drain`."""

from pathlib import Path
from typing import Annotated

import typer

_Backend = Annotated[str, typer.Argument(help="host:port as in the metrics, or the URL.")]
_Config = Annotated[Path | None, typer.Option("--config", help="gateway.yaml that has `admin`.")]
_Admin = Annotated[
    str | None, typer.Option("--admin", help="The operators' address of a gateway, as a URL.")
]
_TokenFile = Annotated[
    Path | None, typer.Option(help="A file with the operators' token; default: the config's.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def drain(
    backend: _Backend,
    config: _Config = None,
    admin: _Admin = None,
    token_file: _TokenFile = None,
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="Wait so long for what is in flight there to end.")
    ] = 600.0,
    as_json: _Json = False,
) -> None:
    """Have a running gateway send one backend nothing new; what runs there ends there."""
    from gateway.commands import drain as command  # noqa: PLC0415

    raise typer.Exit(
        code=command.run(
            backend=backend,
            drained=True,
            config=config,
            admin=admin,
            token_file=token_file,
            wait_seconds=wait_seconds,
            as_json=as_json,
        )
    )


def undrain(
    backend: _Backend,
    config: _Config = None,
    admin: _Admin = None,
    token_file: _TokenFile = None,
    as_json: _Json = False,
) -> None:
    """Have a running gateway send a drained backend requests again."""
    from gateway.commands import drain as command  # noqa: PLC0415

    raise typer.Exit(
        code=command.run(
            backend=backend,
            drained=False,
            config=config,
            admin=admin,
            token_file=token_file,
            wait_seconds=0.0,
            as_json=as_json,
        )
    )
