"""Options of `joulegate savings`; the work is in `calibration.savings.command`."""

from pathlib import Path
from typing import Annotated

import typer


def savings(
    prometheus: Annotated[str, typer.Option(help="Prometheus's address.")],
    window: Annotated[str, typer.Option(help="How far back to read: 12h, 7d.")] = "7d",
    experiment: Annotated[
        str | None, typer.Option(help="Which experiment; default: the one that there is.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="'Name: value' to send; may be repeated.")
    ] = None,
    bearer_token_file: Annotated[
        Path | None, typer.Option(help="File with a token to send.")
    ] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=VALUE that series must have: one's own among several gateways'."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Say what routing saves, by a switchback experiment; see docs/savings.md."""
    from calibration.savings import command as savings_command  # noqa: PLC0415

    options = savings_command.SavingsOptions(
        prometheus=prometheus,
        window=window,
        experiment=experiment,
        header=header or [],
        bearer_token_file=bearer_token_file,
        match=match or [],
        timeout=timeout,
        as_json=as_json,
    )
    raise typer.Exit(code=savings_command.run(options))
